"""The benchmark measures how much the constants of the template search and of the calls change the results.

The benchmark makes the calls of two small runs: a simulated tile, which is compared with its truth, and real images,
which are compared with their codebook. It halves and doubles one constant at a time. The table is Markdown for
``docs/benchmarks/template-constants.md``. The network computes every map once.
"""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import typer
from numpy.typing import NDArray

from calib.calling import scores, signals
from calib.jointfit import localise, modelselection
from calib.normalisation import Normalisation
from calib.offline.codebook import read_codebook
from calib.offline.evaluation.agreement import agreement
from calib.offline.evaluation.callers import Reads
from calib.offline.evaluation.clustermatch import match
from calib.offline.evaluation.oncodebook import compare_with_codebook
from calib.offline.quality.replay import engine_map, replay
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import read_truth, write_simulated_run
from calib.runfolder.images import read_run_info
from calib.template.tiletemplate import MapOf
from engines.backends import EngineOptions, open_engine
from engines.bundles.bundle import Readout, load_bundle

CONSTANTS: dict[ModuleType, tuple[str, ...]] = {
    localise: (
        *("SIGMA_START_PX", "MAX_WIDTH_LIGHT", "STEP", "MAX_STEP_PX", "ADD_SIGNIFICANCE", "ADD_MAX_CYCLE"),
        *("ADD_SUPPORT", "ADD_APART_PX", "COINCIDENCE_PX", "SPLIT_PX", "SPLIT_NOISE", "WIDTH_ROUNDS", "ADD_UNTIL"),
    ),
    modelselection: (
        *("NEIGHBOUR_SIGMAS", "AGREEMENT", "DIM", "DIM_AGREEMENT", "MIN_SIGNIFICANCE", "MAX_UNSTEADINESS"),
        "MIN_CYCLE_BRIGHTNESS",
    ),
    signals: ("MISFIT", "FIT_LOSS", "NETWORK_WEIGHT", "EVIDENCE_FLOOR", "MIN_USUAL_EVIDENCE"),
    scores: ("MAX_MARGIN", "IMPURITY_FLOOR", "CROWDING_FLOOR"),
}
SHARES = {"AGREEMENT", "DIM_AGREEMENT", "FIT_LOSS"}
"""Constants that must not exceed 1."""

CROP = Path("tests/data/iss_mouse_brain_crop")
CYCLES, SIZE_PX, DENSITY_K_MM2, SEED = 12, 96, 284, 5


class Run:
    """A run folder with one tile and its network maps, to be called again and again."""

    def __init__(self, root: Path) -> None:
        self.root, self.info = root, read_run_info(root)
        self._maps: dict[bytes, NDArray[np.float32]] = {}
        self._quality = load_bundle().quality(Readout.FUSED)
        shape = (self.info.height, self.info.width)
        with closing(open_engine(load_bundle(), shape=shape, options=EngineOptions())) as engine:

            def kept_map(pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
                return self._maps.setdefault(pixels.tobytes(), engine_map(engine, pixels, normalisation))

            self._replay(kept_map)

    def reads(self) -> Reads:
        """Call the run with the shipped readout."""
        return self._replay(lambda pixels, _: self._maps[pixels.tobytes()])

    def _replay(self, map_of: MapOf) -> Reads:
        (tile,) = self.info.tiles
        called = replay(self.root, self.info, tile, map_of=map_of, quality=self._quality, progress=lambda: None)
        return called[Readout.FUSED].reads()


def main() -> None:
    """Print one row for every constant and factor."""
    with TemporaryDirectory(prefix="seqd-constants-") as scratch:
        write_simulated_run(
            Path(scratch),
            Conditions(density_k_mm2=DENSITY_K_MM2),
            run="CONSTANTS",
            tiles=1,
            cycles=CYCLES,
            shape=(SIZE_PX, SIZE_PX),
            seed=SEED,
            progress=lambda _: None,
        )
        simulated, real = Run(Path(scratch)), Run(CROP)
        truth, codes = read_truth(simulated.root, simulated.info.tiles[0]), read_codebook(CROP / "codebook.csv")
        typer.echo("| constant | value | found | right | real | errors | reads of the crop | on the codebook |")
        typer.echo("|---|---|---|---|---|---|---|---|")

        def row(name: str, value: float) -> None:
            found = agreement(match(truth, simulated.reads(), cycles=CYCLES))
            crop = compare_with_codebook(codes, real.reads().sequences)
            typer.echo(
                f"| {name} | {value:g} | {found.found:.1%} | {found.yielded:.1%} | {found.real:.1%} "
                f"| {found.error_rate:.2%} | {crop.reads} | {crop.share:.1%} |"
            )

        row("as shipped", 1)
        for module, names in CONSTANTS.items():
            for name in names:
                shipped = getattr(module, name)
                for factor in (0.5, 2.0):
                    value = type(shipped)(shipped * factor)
                    setattr(module, name, min(value, 1.0) if name in SHARES else value)
                    row(f"`{module.__name__.removeprefix('calib.')}.{name}`", getattr(module, name))
                setattr(module, name, shipped)


if __name__ == "__main__":
    typer.run(main)
