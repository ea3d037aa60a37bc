"""launch/local.sh: one or more processes on one machine."""

import shlex
import signal
import subprocess
import time

import pytest

from tests.launch.scripts import LOCAL, calls, executable, launch, wait_for


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
            assert words[:4] == [
                "env",
                "CDC_COORDINATOR=localhost:4321",
                "CDC_PROCESS_COUNT=2",
                f"CDC_PROCESS_INDEX={index}",
            ]
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
        body = f"trap 'echo $CDC_PROCESS_INDEX >> \"{saved}\"; exit {ends_with}' {sent.name[3:]}\n"
        body += f'echo . >> "{ready}"; for i in $(seq 200); do sleep 0.1; done'
        settings = {"PYTHON": str(executable(tmp_path, "python", body)), "PROCESSES": "2", "TMPDIR": str(tmp_path)}
        environment = {"PATH": "/usr/bin:/bin", **settings}
        with subprocess.Popen(["bash", str(LOCAL), "c.py", "w"], env=environment, stderr=subprocess.DEVNULL) as script:
            wait_for(lambda: ready.exists() and len(ready.read_text().split()) == 2)
            script.send_signal(sent)
            assert script.wait(timeout=20) == ends_with
        assert sorted(saved.read_text().split()) == ["0", "1"]
        assert len(calls(tmp_path)) == 2, "nothing is started again"
