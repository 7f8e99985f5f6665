"""``seqd calib``: simulate, reconstruct, label, train, quantise, export, evaluate."""

import typer

from calib.learning.evaluation.command import evaluate
from calib.learning.export import export
from calib.learning.labels.command import label
from calib.learning.quality.command import quality
from calib.learning.quantisation.command import quantise
from calib.learning.sim.command import reconstruct
from calib.learning.simulation.command import simulate
from calib.learning.training.command import ablate, train

app = typer.Typer(help="Simulate, reconstruct, label, train, quantise, export and evaluate.", no_args_is_help=True)
for command in (simulate, reconstruct, label, train, quality, quantise, export, ablate, evaluate):
    app.command()(command)
