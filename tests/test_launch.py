"""The launch scripts: what they would run, when they try again, and what a fake cloud sees of it."""

import os
import re
import runpy
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

from cdc_jax.training.config import check_overrides
from tests.helpers.processes import ROOT

LAUNCH = ROOT / "launch"
LOCAL, TPU_VM, SLURM = LAUNCH / "local.sh", LAUNCH / "tpu_vm.sh", LAUNCH / "slurm.sbatch"


def launch(script, *arguments, **environment):
    command = ["bash", str(script), *arguments]
    environment = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def executable(folder, name, body):
    """A shell script that stands in for a program: notes each call, then runs `body`."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def calls(folder):
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition, timeout_seconds=20):
    end = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_scripts_pass_shellcheck():
    beside_python = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    shellcheck = shutil.which("shellcheck", path=beside_python)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install '.[test]'")
    scripts = [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]
    checked = subprocess.run([shellcheck, *map(str, scripts)], capture_output=True, text=True)
    assert len(scripts) == 3 and checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", [LOCAL, TPU_VM, SLURM], ids=lambda path: path.name)
def test_usage(script):
    finished = launch(script, *(["train"] if script == TPU_VM else []), "configs/demo.py")
    assert finished.returncode == 2 and "CONFIG WORKDIR" in finished.stderr and not finished.stdout


@pytest.mark.parametrize("script", [LOCAL, TPU_VM])
def test_the_scripts_can_be_called_by_their_names(script):
    assert os.access(script, os.X_OK)


def documented_commands():
    """What documentation, scripts and configurations say to run with one of our configurations."""
    commands = []
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *LAUNCH.iterdir(), *ROOT.glob("configs/*.py")]:
        text = re.sub(r" \\\n#? *", " ", path.read_text(encoding="utf-8"))
        for line in text.splitlines():
            quoted = re.findall(r"`([^`]+)`", line) or [re.sub(r"^(#|Command:)? *", "", line)]
            commands += [one for one in quoted if re.search(r"(\.main|\.sh|\.sbatch) .*configs/[a-z]", one)]
    return sorted(set(commands))


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_can_work(command):
    """Their settings exist, they say where the data are, and the batch spreads over the devices that they mean."""
    path, argument = re.search(r"(configs/\w+\.py)(?::(\S+))?", command).groups()
    config = runpy.run_path(str(ROOT / path))["get_config"](*filter(None, [argument]))
    given = dict(word.lstrip("-").split("=", 1) for word in shlex.split(command, comments=True) if "=" in word)
    settings = {name.removeprefix("config."): value for name, value in given.items() if name.startswith("config.")}
    check_overrides(config, settings)
    if given.get("mode") == "compile":
        return
    assert settings.get("data.path", config.data.path) or config.data.source == "scikit-image"
    devices = int(given.get("PROCESSES", 1)) * int(given.get("DEVICES_PER_PROCESS", 1))
    if "slurm.sbatch" in command or "tpu_vm.sh" in command:
        devices = 8 * int(given.get("nodes", 1))
    assert int(settings.get("data.batch_size", config.data.batch_size)) % devices == 0


class TestLocal:
    def test_processes_without_virtual_devices_take_a_gpu_each(self):
        lines = launch(LOCAL, "--dry-run", "c.py", "w", PROCESSES="2").stdout.splitlines()
        assert [f"JAX_LOCAL_DEVICE_IDS={index}" in line for index, line in enumerate(lines)] == [True, True]

    def test_dry_run_prints_the_command_and_runs_nothing(self, tmp_path):
        python = str(executable(tmp_path, "python", "exit 0"))
        finished = launch(LOCAL, "--dry-run", "configs/demo.py", "runs/my demo", "--config.seed=1", PYTHON=python)
        arguments = ["-m", "cdc_jax.main", "--config=configs/demo.py", "--workdir=runs/my demo", "--config.seed=1"]
        assert shlex.split(finished.stdout) == [python, *arguments]
        assert not calls(tmp_path)

    def test_dry_run_of_two_processes_shows_how_they_meet(self):
        settings = {"PROCESSES": "2", "DEVICES_PER_PROCESS": "4", "PORT": "4321", "XLA_FLAGS": "--xla_dump_to=x"}
        lines = launch(LOCAL, "--dry-run", "c.py", "w", **settings).stdout.splitlines()
        assert len(lines) == 2
        for index, line in enumerate(lines):
            words = shlex.split(line)
            assert words[:4] == ["env", "CDC_COORDINATOR=localhost:4321", "CDC_PROCESS_COUNT=2",
                                 f"CDC_PROCESS_INDEX={index}"]
            assert "XLA_FLAGS=--xla_force_host_platform_device_count=4 --xla_dump_to=x" in words

    def test_a_crash_is_tried_again_and_a_mistake_is_not(self, tmp_path):
        for status, count in ((0, 1), (1, 3), (2, 1), (130, 1), (143, 1), (139, 3)):
            folder = tmp_path / str(status)
            finished = launch(LOCAL, "c.py", "w", PYTHON=str(executable(folder, "python", f"exit {status}")))
            assert finished.returncode == status
            assert len(calls(folder)) == count

    def test_processes_find_their_places_and_fail_together(self, tmp_path):
        body = f'echo $CDC_PROCESS_INDEX $CDC_PROCESS_COUNT $CDC_COORDINATOR $XLA_FLAGS >> "{tmp_path}/seen"\n'
        body += "if [ $CDC_PROCESS_INDEX = 1 ]; then echo failed; exit 7; fi\nexec sleep 30"
        python = str(executable(tmp_path, "python", body))
        started = time.monotonic()
        settings = {"PROCESSES": "2", "PORT": "4321", "ATTEMPTS": "2", "TMPDIR": str(tmp_path)}
        finished = launch(LOCAL, "c.py", "w", PYTHON=python, **settings)
        assert finished.returncode == 7 and time.monotonic() - started < 20
        assert "failed" in finished.stderr, "the log of the process that failed is shown"
        seen = (tmp_path / "seen").read_text().splitlines()
        assert sorted(seen) == ["0 2 localhost:4321"] * 2 + ["1 2 localhost:4321"] * 2

    @pytest.mark.parametrize("sent, ends_with", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_signals_reach_the_trainers(self, tmp_path, sent, ends_with):
        ready, saved = tmp_path / "ready", tmp_path / "saved"
        body = f'trap \'echo $CDC_PROCESS_INDEX >> "{saved}"; exit {ends_with}\' {sent.name[3:]}\n'
        body += f'echo . >> "{ready}"; for i in $(seq 200); do sleep 0.1; done'
        settings = {"PYTHON": str(executable(tmp_path, "python", body)), "PROCESSES": "2", "TMPDIR": str(tmp_path)}
        environment = {"PATH": "/usr/bin:/bin", **settings}
        with subprocess.Popen(["bash", str(LOCAL), "c.py", "w"], env=environment, stderr=subprocess.DEVNULL) as script:
            wait_for(lambda: ready.exists() and len(ready.read_text().split()) == 2)
            script.send_signal(sent)
            assert script.wait(timeout=20) == ends_with
        assert sorted(saved.read_text().split()) == ["0", "1"]
        assert len(calls(tmp_path)) == 2, "nothing is started again"


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
        """Runs the script against a fake gcloud; returns the finished process and the kinds of calls it made."""

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
                "queued-resources describe": "ask the queue", "tpu-vm describe": "look", "echo lost": "status",
                "queued-resources create": "queue", "tpu-vm create": "create", " delete ": "delete", "scp": "copy",
                "uv pip install": "install", "kill -TERM": "stop", "cdc_jax.main": "train",
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
        assert {"--node-id=mine", "--zone=here", "--project=p", "--accelerator-type=v6e-8", "--spot",
                "--runtime-version=v2-alpha-tpuv6e"} <= set(create)
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

    def test_a_suspended_queue_request_is_made_anew(self, cloud):
        queue = "SUSPENDED\nSUSPENDED\nWAITING_FOR_RESOURCES\nACTIVE\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states="gone\nREADY\n", codes="lost\n0\n", queue=queue,
                               creates="refused\nok\n", PROVISIONING="queued-spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        acted = [name for name in made if name not in ("look", "status", "ask the queue")]
        assert acted == ["queue", "delete", "queue", *self.START]

    def test_a_training_that_goes_on_is_watched_not_started_twice(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="running\nrunning\n0\n")
        assert finished.returncode == 0 and "train" not in made and "create" not in made

    def test_saved_state_resumes_and_crashes_are_counted(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n143\n143 running\n143\n143\n0\n")
        assert finished.returncode == 0 and made.count("train") == 5 and made.count("install") == 1
        assert made.count("stop") == 4

    def test_gives_up_on_crashes_and_at_once_on_mistakes(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n1\n", ATTEMPTS="2")
        assert finished.returncode == 1 and "attempt 2 of 2" in finished.stderr and made.count("train") == 2
        assert "tpu_vm.sh delete" in finished.stderr, "the TPU costs money until then"

    def test_a_long_spot_run_outlives_a_lost_connection_on_each_vm(self, cloud):
        vm = "READY\n" * 3 + "PREEMPTED\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states=4 * vm + "READY\n", copies=4 * "refused\nok\n",
                               codes=4 * "lost\nlost\nrunning\n" + "0\n", PROVISIONING="spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert made.count("copy") == 2 * 4 + 1 and made.count("create") == 4

    def test_crashes_are_counted_on_each_vm_anew(self, cloud):
        vm = "READY\n" * 3 + "PREEMPTED\n"
        finished, made = cloud("run", "c.py", "gs://b/x", states=3 * vm + "READY\n", ATTEMPTS="2",
                               codes=3 * "lost\n1\nrunning\n" + "0\n", PROVISIONING="spot")  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert made.count("stop") == 3

    def test_a_set_up_that_always_fails_ends_it(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n", copies="refused\n")
        assert finished.returncode == 1 and "attempt 3 of 3: the set-up" in finished.stderr and made.count("copy") == 3
        assert "tpu_vm.sh delete" in finished.stderr and "delete" not in made

    def test_a_mistake_in_the_settings_ends_it(self, cloud):
        finished, made = cloud("run", "c.py", "gs://b/x", codes="lost\n2\n")
        assert finished.returncode == 2 and made.count("train") == 1

    def test_a_local_workdir_is_refused(self, cloud):
        finished, made = cloud("run", "c.py", "runs/x")
        assert finished.returncode == 2 and "bucket" in finished.stderr and made == [""]

    def test_what_the_worker_runs_leaves_exit_code_and_state(self, cloud, tmp_path):
        """The shell text for the workers, run here: it starts, says so, is stopped, and the exit code is kept."""
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
        assert calls(home / "cdc_venv" / "bin") == ["python -m cdc_jax.main --config=configs/my own.py --workdir=gs://b/x"]


def shlex_lines(text):
    """Commands of a dry run, whose quoted words may span lines; comments left out."""
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


class TestSlurm:
    TOOLS = {"srun": "exit 0", "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; fi', "scancel": "true"}

    def tools(self, folder, **bodies):
        for name, body in (self.TOOLS | bodies).items():
            executable(folder, name, body)
        return {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "n[1-2]"}

    def test_dry_run_calls_nothing(self, tmp_path):
        finished = launch(SLURM, "--dry-run", "c.py", "w", **self.tools(tmp_path), SLURM_JOB_NUM_NODES="2")
        assert finished.returncode == 0 and not calls(tmp_path)
        assert "CDC_PROCESS_COUNT=2" in finished.stdout and "scontrol requeue 123" in finished.stdout

    def test_nodes_find_their_places(self, tmp_path):
        srun = 'shift 3; for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done'
        tools = self.tools(tmp_path, srun=srun)
        body = f'echo $CDC_PROCESS_INDEX $CDC_PROCESS_COUNT $CDC_COORDINATOR >> "{tmp_path}/seen"'
        tools["PYTHON"] = str(executable(tmp_path, "python", body))
        assert launch(SLURM, "c.py", "w", **tools, SLURM_JOB_NUM_NODES="2").returncode == 0
        assert (tmp_path / "seen").read_text().splitlines() == ["0 2 n1:20123", "1 2 n1:20123"]

    def test_one_node_needs_no_meeting_place(self, tmp_path):
        tools = self.tools(tmp_path)
        assert launch(SLURM, "c.py", "w", **tools).returncode == 0
        assert calls(tmp_path) == ["srun --ntasks-per-node=1 --cpus-per-task=64 --kill-on-bad-exit=1 python3 -m "
                                   "cdc_jax.main --config=c.py --workdir=w"]

    def test_an_error_is_passed_on_and_not_requeued(self, tmp_path):
        finished = launch(SLURM, "c.py", "w", **self.tools(tmp_path, srun="exit 1"))
        assert finished.returncode == 1 and not any("requeue" in call for call in calls(tmp_path))

    def test_near_the_time_limit_the_state_is_saved_and_the_job_requeued(self, tmp_path):
        pid, ready = tmp_path / "pid", tmp_path / "ready"
        srun = f'trap "exit 143" TERM; echo $$ > "{pid}"; touch "{ready}"; for i in $(seq 200); do sleep 0.1; done'
        tools = self.tools(tmp_path, srun=srun, scancel=f'kill -TERM $(cat "{pid}")')
        with subprocess.Popen(["bash", str(SLURM), "c.py", "w"], env=tools, stderr=subprocess.DEVNULL) as script:
            wait_for(ready.exists)
            os.kill(script.pid, signal.SIGTERM)
            assert script.wait(timeout=20) == 143
        assert [call for call in calls(tmp_path) if call.startswith("sc")] == ["scancel --signal=TERM 123",
                                                                               "scontrol requeue 123"]
