"""launch/tpu_vm.sh: the commands that a fake cloud gets, and when the script tries again."""

import shlex
import subprocess

import pytest

from tests.launch.scripts import TPU_VM, calls, executable, launch, wait_for

# Answers `describe` and the status question from lists, one line a call; the last line stays.
FAKE_CLOUD = """
answer() {
    head -n 1 "$1"
    if [ "$(wc -l < "$1")" -gt 1 ]; then sed -i 1d "$1"; fi
}
here=$(dirname "$0")
case "$*" in
    *queued-resources\\ describe*) answer "$here/queue" ;;
    *tpu-vm\\ describe*)
        state=$(answer "$here/states")
        case $state in
            gone) echo "ERROR: NOT_FOUND: Resource was not found" >&2; exit 1 ;;
            offline) echo "ERROR: cannot reach the server" >&2; exit 1 ;;
            *) echo "$state" ;;
        esac
        ;;
    *cdc_train.status*echo\\ lost*) answer "$here/codes" | tr ' ' '\\n' ;;
    *tpu-vm\\ scp*) [ "$(answer "$here/copies")" != refused ] ;;
    *create*) [ "$(answer "$here/creates")" != refused ] ;;
esac
"""


class TestTpuVm:
    @pytest.fixture
    def cloud(self, tmp_path):
        """Runs the script with a fake gcloud, and returns the finished process and the kinds of calls that it made."""

        def run(*arguments, states="READY\n", codes="0\n", queue="ACTIVE\n", creates="ok\n", copies="ok\n",
                **environment):  # fmt: skip
            tools = tmp_path / "tools"
            executable(tools, "gcloud", FAKE_CLOUD)
            executable(tools, "git", "true")
            answers = {"states": states, "codes": codes, "queue": queue, "creates": creates, "copies": copies}
            for name, lines in answers.items():
                (tools / name).write_text(lines)
            environment = {"PATH": f"{tools}:/usr/bin:/bin", "POLL_SECONDS": "0", "TMPDIR": str(tmp_path)} | environment
            finished = launch(TPU_VM, *arguments, **environment)
            return finished, [kind(line) for line in "\n".join(calls(tools)).split("\ngcloud ")]

        def kind(line):
            names = {
                "queued-resources describe": "ask the queue",
                "tpu-vm describe": "look",
                "echo lost": "status",
                "queued-resources create": "queue",
                "tpu-vm create": "create",
                " delete ": "delete",
                "scp": "copy",
                "uv pip install": "install",
                "kill -TERM": "stop",
                "cdc_jax.main": "train",
            }
            return next((name for part, name in names.items() if part in line), line)

        return run

    START = ["copy", "install", "train"]

    def test_dry_run_prints_every_command_and_runs_none(self, cloud):
        finished, made = cloud("--dry-run", "run", "configs/imagenet.py", "gs://b/run 1", "--config.loss.beta=0.1",
                               PROVISIONING="queued-spot", TPU_NAME="mine", ZONE="here", PROJECT="p",
                               ACCELERATOR="v6e-8")  # fmt: skip
        assert finished.returncode == 0 and made == [""]
        lines = [shlex.split(line) for line in shlex_lines(finished.stdout)]
        create = lines[0]
        assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "mine-queue"]
        assert {
            "--node-id=mine",
            "--zone=here",
            "--project=p",
            "--accelerator-type=v6e-8",
            "--spot",
            "--runtime-version=v2-alpha-tpuv6e",
        } <= set(create)
        train = next(line for line in lines if any("cdc_jax.main" in word for word in line))
        assert "--worker=all" in train
        text = next(word for word in train if word.startswith("--command="))
        inner = text.split("bash -c ")[1].split(" >> cdc_train.log")[0]
        trainer = shlex.split(shlex.split(inner)[0].split("cd cdc_jax; ")[1])
        assert trainer[:2] == ["env", "CDC_DISTRIBUTED=1"]
        assert trainer[5:8] == ["--config=configs/imagenet.py", "--workdir=gs://b/run 1", "--config.loss.beta=0.1"]
        assert any("delete" in line for line in lines), "what a preemption leads to is shown"

    @pytest.mark.parametrize("provisioning, spot", [("on-demand", False), ("spot", True)])
    def test_create(self, cloud, provisioning, spot):
        line = shlex.split(cloud("--dry-run", "create", PROVISIONING=provisioning)[0].stdout)
        assert line[3:6] == ["tpu-vm", "create", "cdc"] and ("--spot" in line) == spot
        assert "--version=v2-alpha-tpuv5-lite" in line

    def test_setup_can_be_given_more_to_do(self, cloud):
        shown = cloud("--dry-run", "setup", SETUP_COMMAND="gcsfuse 'my bucket' data")[0].stdout
        text = shlex.split(shlex_lines(shown)[-1])[-1]
        assert text.splitlines()[-1] == "gcsfuse 'my bucket' data"
        assert subprocess.run(["bash", "-n", "-c", text.removeprefix("--command=")]).returncode == 0

    def test_from_nothing_to_a_finished_run(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", states="gone\nCREATING\nREADY\n",
                               codes="lost\nrunning\n0 running\n0\n", creates="refused\nok\n")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        acted = [name for name in made if name not in ("look", "status")]
        assert acted == ["create", "delete", "create", *self.START]

    def test_a_preempted_tpu_is_replaced_and_the_run_resumed(self, cloud):
        states = "READY\nREADY\nPREEMPTED\nREADY\nREADY\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states=states, codes="lost\nrunning\nlost\n0\n",
                               PROVISIONING="spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        acted = [name for name in made if name not in ("look", "status")]
        assert acted == [*self.START, "delete", "create", *self.START]

    def test_a_cloud_that_does_not_answer_costs_no_running_vm(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", states="READY\noffline\nREADY\noffline\nREADY\n",
                               codes="running\nrunning\n0\n")  # fmt: skip
        assert finished.returncode == 0 and set(made) == {"look", "status"}

    def test_a_suspended_queue_request_is_made_again(self, cloud):
        queue = "SUSPENDED\nSUSPENDED\nWAITING_FOR_RESOURCES\nACTIVE\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states="gone\nREADY\n", codes="lost\n0\n", queue=queue,
                               creates="refused\nok\n", PROVISIONING="queued-spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        acted = [name for name in made if name not in ("look", "status", "ask the queue")]
        assert acted == ["queue", "delete", "queue", *self.START]

    def test_a_training_that_continues_is_watched_not_started_twice(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="running\nrunning\n0\n")
        assert finished.returncode == 0 and "train" not in made and "create" not in made

    def test_saved_state_resumes_and_crashes_are_counted(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n143\n143 running\n143\n143\n0\n")
        assert finished.returncode == 0 and made.count("train") == 5 and made.count("install") == 1
        assert made.count("stop") == 4

    def test_gives_up_on_crashes_and_at_once_on_mistakes(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n1\n", ATTEMPTS="2")
        assert finished.returncode == 1 and "Attempt 2 of 2" in finished.stderr and made.count("train") == 2
        assert "tpu_vm.sh delete" in finished.stderr, "the TPU costs money until then"

    def test_a_long_spot_run_outlives_a_lost_connection_on_each_vm(self, cloud):
        vm = "READY\n" * 3 + "PREEMPTED\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states=4 * vm + "READY\n", copies=4 * "refused\nok\n",
                               codes=4 * "lost\nlost\nrunning\n" + "0\n", PROVISIONING="spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert made.count("copy") == 2 * 4 + 1 and made.count("create") == 4

    def test_crashes_are_counted_on_each_vm_again(self, cloud):
        vm = "READY\n" * 3 + "PREEMPTED\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states=3 * vm + "READY\n", ATTEMPTS="2",
                               codes=3 * "lost\n1\nrunning\n" + "0\n", PROVISIONING="spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert made.count("stop") == 3

    def test_a_set_up_that_always_fails_ends_it(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n", copies="refused\n")
        assert finished.returncode == 1 and "Attempt 3 of 3: the set-up" in finished.stderr and made.count("copy") == 3
        assert "tpu_vm.sh delete" in finished.stderr and "delete" not in made

    def test_a_mistake_in_the_settings_ends_it(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n2\n")
        assert finished.returncode == 2 and made.count("train") == 1

    def test_a_local_workdir_is_refused(self, cloud):
        finished, made = cloud("run", "c.py", "runs/x")
        assert finished.returncode == 2 and "bucket" in finished.stderr and made == [""]

    def test_what_the_worker_runs_leaves_exit_code_and_state(self, cloud, tmp_path):
        """The workers' commands, run here: training starts, is reported and stopped, and the exit code is kept."""
        home = tmp_path / "home"
        (home / "cdc_jax").mkdir(parents=True)
        ready = home / "ready"
        trainer = f'trap "exit 143" TERM; touch "{ready}"; for i in $(seq 200); do sleep 0.1; done'
        executable(home / "cdc_venv" / "bin", "python", trainer)

        def on_worker(action, *arguments):
            shown = launch(TPU_VM, "--dry-run", action, *arguments).stdout
            text = next(word for word in shlex.split(shown) if word.startswith("--command=")).removeprefix("--command=")
            worker = subprocess.run(["bash", "-c", text], cwd=home, capture_output=True, text=True, timeout=60)
            return worker.stdout.strip()

        assert on_worker("status") == "lost"
        on_worker("train", "configs/my own.py", "gs://b/x")
        wait_for(ready.exists)
        assert on_worker("status") == "running"
        on_worker("stop")
        assert on_worker("status") == "143"
        assert calls(home / "cdc_venv" / "bin") == [
            "python -m cdc_jax.main --config=configs/my own.py --workdir=gs://b/x"
        ]


def shlex_lines(text):
    """The commands of a dry run, whose quoted words may span lines, without comments."""
    lines, pending = [], ""
    for line in text.splitlines():
        if not pending and line.startswith("#"):
            continue
        pending += line + "\n"
        try:
            shlex.split(pending)
        except ValueError:
            continue
        lines.append(pending)
        pending = ""
    return lines
