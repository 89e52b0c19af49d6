"""What a figure was measured on: without it a figure says nothing."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.site import nginx_version


def describe_machine() -> dict[str, str | int | float]:
    """Describe this machine and moment: processor, cores, memory in MB, system, load, date."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count() or 0,
        "memory_mb": int(_field("/proc/meminfo", "MemTotal").split()[0] or 0) // 1024,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nginx": nginx_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def in_one_line(machine: dict[str, str | int | float]) -> str:
    """Say the same as one line for a caption."""
    return (
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_mb']} MB, {machine['system']}, Python {machine['python']}, "
        f"{machine['nginx']}, load before {machine['load_before']}"
    )


def _field(path: str, name: str) -> str:
    """Read one `name : value` line, or "0" where there is none."""
    file = Path(path)
    lines = file.read_text().splitlines() if file.exists() else []
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return values[0] if values else "0"
