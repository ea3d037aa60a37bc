# shellcheck shell=bash
# Sourced by the launch scripts.

# Prints a command, quoted so that it can be typed.
show() {
    local word line=
    for word in "$@"; do
        if ! [[ "$word" =~ ^[A-Za-z0-9_./:=,@+-]+$ ]]; then word="'${word//\'/\'\\\'\'}'"; fi
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}
