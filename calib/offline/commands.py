"""``seqd calib``: simulate, reconstruct, label, train, quantise, export, evaluate."""

import typer

from calib.offline.evaluation.command import evaluate
from calib.offline.labels.command import label
from calib.offline.quality.command import quality
from calib.offline.quantisation.command import quantise
from calib.offline.simulation.command import simulate
from calib.offline.structured_illumination.command import reconstruct
from calib.offline.training.command import ablate, export, train

app = typer.Typer(help="Simulate, reconstruct, label, train, quantise, export and evaluate.", no_args_is_help=True)
for command in (simulate, reconstruct, label, train, quality, quantise, export, ablate, evaluate):
    app.command()(command)
