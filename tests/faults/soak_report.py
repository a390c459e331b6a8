"""What a soak found, and what of it is not as it must be."""

from __future__ import annotations

import msgspec


class Report(msgspec.Struct, kw_only=True):
    """What a soak found; sizes in MiB, times in seconds."""

    tasks: int = 0
    probes: int = 0
    lost_probes: list[str] = []
    lapsed_probes: int = 0
    """Picked up again because the first who got it had gone."""
    pick_up_ms: dict[str, tuple[float, float]] = {}
    """p50 and p99 of each third of the time."""
    rss_warm: float = 0.0
    rss_end: float = 0.0
    rss_rest: float = 0.0
    cpu: float = 0.0
    """Share of one processor that the coordinator took."""
    kills: int = 0
    lost_leases: float = 0
    open_tasks: int = 0
    gauges: dict[str, float] = {}
    descriptors: tuple[int, int] = (0, 0)
    """Before and after."""
    asyncio_tasks: tuple[dict[str, int], dict[str, int]] = ({}, {})
    grown: dict[str, tuple[int, int]] = {}
    """Types of which there are many more objects than before the crowd came."""

    def complaints(self) -> list[str]:
        """Return what is not as it must be."""
        allowed = self.rss_warm * 0.15 + 24
        found = {
            f"probes were not picked up: {self.lost_probes[:10]}": bool(self.lost_probes),
            f"{self.open_tasks} tasks were left open": self.open_tasks != 0,
            f"gauges are not back: {self.gauges}": any(self.gauges.values()),
            f"descriptors leak: {self.descriptors}": self.descriptors[1] > self.descriptors[0] + 2,
            f"tasks of asyncio leak: {self.asyncio_tasks}": (
                sum(self.asyncio_tasks[1].values()) > sum(self.asyncio_tasks[0].values()) + 2
            ),
            f"objects leak: {self.grown}": bool(self.grown),
            f"memory grew from {self.rss_warm} to {self.rss_end} MiB": self.rss_end > self.rss_warm + allowed,
        }
        return [complaint for complaint, is_so in found.items() if is_so]
