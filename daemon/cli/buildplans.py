"""``seqd build``: TensorRT plans."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.config import Config, load_config
from engines.bundles.bundle import load_bundle
from engines.contract import EngineOptions
from engines.devices import open_cuda
from engines.tensorrt.api import load_tensorrt
from engines.tensorrt.cache import KeptPlan, default_folder
from engines.tensorrt.plans import Plans


def build(
    size: Annotated[tuple[int, int], typer.Option(min=8, help="Height and width of the tiles, px.", metavar="H W")],
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; its bundle, strips and precision are used.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of another bundle.")] = None,
    superresolved: Annotated[
        bool, typer.Option("--superresolved", help="Also build the plan that makes super-resolved images.")
    ] = False,
) -> None:
    """Build the TensorRT plan that a run on this GPU needs; it is kept until GPU, driver, TensorRT or bundle change."""
    settings = (load_config(config) if config else Config()).engine
    options = EngineOptions(precision=settings.precision, strip_px=settings.strip_px)
    whole = load_bundle(bundle or settings.bundle)
    driver = open_cuda()
    try:
        plans = Plans(load_tensorrt(), driver.info, whole, shape=size, options=options, folder=default_folder())
        for wanted in (False, True) if superresolved else (False,):
            build_one(plans, superresolved=wanted)
    finally:
        driver.close()


def build_one(plans: Plans, *, superresolved: bool) -> None:
    """Build a plan, or say that there is one.

    Raises
    ------
    EngineError : the plan cannot be built, or the stored plan is not trusted or was altered.
    """
    if (kept := plans.kept(superresolved=superresolved)) is not None:
        typer.echo(f"in the cache: {_facts(kept)}")
        return
    typer.echo(f"building {plans.key(superresolved=superresolved)}; this takes minutes")
    typer.echo(f"built in {(built := plans.plan(superresolved=superresolved)).record.seconds:.1f} s: {_facts(built)}")


def _facts(plan: KeptPlan) -> str:
    record = plan.record
    return (
        f"{record.key}, driver {record.key.driver}\n"
        f"  {record.layers} layers, {record.convolutions} convolutions, all FP16; {len(plan.content) / 1e6:.1f} MB\n"
        f"  {plan.path}"
    )
