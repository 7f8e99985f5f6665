"""The benchmark compares the time of the joint fit with that of the network, at three densities.

It measures the fit of one cycle, and the fits that make a template.

``make bench`` prints the table. Seconds vary by tens of per cent on a shared machine; compare the ratios.
"""

import statistics
import time
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from calib.jointfit.fitcycle import fit_cycle
from calib.normalisation import Normalisation
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from calib.template.tiletemplate import make_template
from engines.backends import EngineOptions, open_engine
from engines.bundles.bundle import Readout, load_bundle
from engines.contract import Engine, Request

SHAPE = (256, 256)
TEMPLATE_CYCLES = 10
DENSITIES_K_MM2 = (57, 284, 850)


def main() -> None:
    """Measure and print."""
    table = Table("K/mm²", "clusters", title=f"{SHAPE[0]}×{SHAPE[1]} px, {TEMPLATE_CYCLES} template cycles")
    columns = (
        "network, s a cycle",
        "fit, s a cycle",
        "fit / network",
        "template, s",
        "template / network in all template cycles",
    )
    for column in columns:
        table.add_column(column, justify="right")
    with closing(open_engine(load_bundle(), shape=SHAPE, options=EngineOptions())) as engine:
        for density in DENSITIES_K_MM2:
            table.add_row(f"{density}", *_measured(engine, density))
    Console().print(table)


def _measured(engine: Engine, density: float) -> list[str]:
    tile = simulate_tile(Conditions(density_k_mm2=density), shape=SHAPE, cycles=TEMPLATE_CYCLES, seed=1)
    images = [tile.images(cycle) for cycle in range(1, TEMPLATE_CYCLES + 1)]
    started, busy_before = time.perf_counter(), engine.busy_s
    template = make_template(images, partial(_map, engine), Readout.FUSED)
    network = engine.busy_s - busy_before
    localised = time.perf_counter() - started - network
    assert template.scene is not None
    fits = []
    for pixels in images:
        normalised = template.normalisation.apply(pixels)
        drift = template.drift(normalised)
        started = time.perf_counter()
        fit_cycle(normalised, template.scene, drift)
        fits.append(time.perf_counter() - started)
    fit, one = statistics.median(fits), network / TEMPLATE_CYCLES
    return [
        str(len(template.positions)),
        f"{one:.3f}",
        f"{fit:.3f}",
        f"{fit / one:.2f}",
        f"{localised:.1f}",
        f"{localised / network:.1f}",
    ]


def _map(engine: Engine, pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
    slot = engine.lease(60)
    slot.pixels[...] = pixels
    engine.submit(slot, Request(normalisation.offset, normalisation.gain, probabilities=True))
    probabilities = engine.collect(slot, 60).probabilities
    assert probabilities is not None
    return probabilities


if __name__ == "__main__":
    main()
