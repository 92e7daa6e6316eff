"""The command line as other programs meet it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_whoever_stops_reading_is_met_with_silence() -> None:
    command = [sys.executable, "-m", "pipelines.cli", "cities"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_all_that_was_printed_has_arrived_and_the_status_is_that_of_the_command() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments], cwd=ROOT, capture_output=True, text=True
        )

    listed, refused, misused = run("cities"), run("plan", "nowhere"), run("nonsense")
    assert (listed.returncode, refused.returncode, misused.returncode) == (0, 1, 2)
    assert "simville" in listed.stdout and listed.stdout.endswith("\n")
    assert "has no city, conurbation or country 'nowhere'" in refused.stderr
    assert "invalid choice: 'nonsense'" in misused.stderr
