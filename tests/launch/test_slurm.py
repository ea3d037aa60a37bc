"""launch/slurm.sbatch: jobs under SLURM."""

import os
import signal
import subprocess

from tests.launch.scripts import SLURM, calls, executable, launch, wait_for


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

    def test_one_node_needs_no_coordinator(self, tmp_path):
        tools = self.tools(tmp_path)
        assert launch(SLURM, "c.py", "w", **tools).returncode == 0
        assert calls(tmp_path) == [
            "srun --ntasks-per-node=1 --cpus-per-task=64 --kill-on-bad-exit=1 python3 -m "
            "cdc_jax.main --config=c.py --workdir=w"
        ]

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
        assert [call for call in calls(tmp_path) if call.startswith("sc")] == [
            "scancel --signal=TERM 123",
            "scontrol requeue 123",
        ]
