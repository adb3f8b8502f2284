"""Draw Figure 1 from the network's own modules, as figure/architecture.{svg,pdf,png}."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import IEFVAD, ConfigError, Objective
from vad.files import ROOT, run_command
from vad.options import add_flags, command_parser, explicit_options, resolve
from vad.report import plots
from vad.report.plots import COLOUR, line_style, shade, styled

Point = tuple[float, float]
WIDTH, HEIGHT = 168, 82  # of the canvas, in canvas units
ROW = {"image": 62.0, "event": 20.0}  # vertical centre of a stream
MIDDLE = 41.0
OUTWARD = {"image": 1, "event": -1}  # direction away from the fusion, where the variance is drawn
SUBSCRIPT = {"image": "i", "event": "e"}
INK, PALE, LOSS = "0.15", "0.45", "0.35"
FUSION = COLOUR["fusion"]


@dataclass(frozen=True)
class Architecture:
    """The properties of a network that the figure shows."""

    streams: tuple[str, ...]  # "image", "event"
    width: int  # D
    layers: int  # of self-attention in each encoder
    heads: int
    noise_model: str
    nu: float
    epsilon_placement: str
    temporal_update: str
    steps: int  # refinement steps N
    step_layers: tuple[str, ...]  # layer types of one refinement step
    lambda_ref: float
    mil: str
    parameters: Mapping[str, int]  # number per part; encoder and head of one stream


def describe(model: IEFVAD, objective: Objective) -> Architecture:
    """Return the properties shown in the figure, read from the network's modules and options."""
    c, blocks = model.config, model.refinement.blocks
    streams = tuple(m for m in ("image", "event") if hasattr(model, f"{m}_encoder"))
    encoder, head = (getattr(model, f"{streams[0]}_{part}") for part in ("encoder", "head"))
    parts = {"encoder": encoder, "head": head, "temporal": model.temporal_update, "refinement": model.refinement,
             "classifier": model.classifier, "all": model}  # fmt: skip
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    return Architecture(
        streams, model.classifier.in_features, len(encoder.attentions), encoder.attentions[0].num_heads,
        c.noise_model, c.nu, c.epsilon_placement, c.temporal_update,
        len(blocks), tuple(type(layer).__name__ for layer in blocks[0]) if len(blocks) else (),
        model.refinement.lambda_ref, objective.mil, counts,
    )  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A box given by its centre and size, in canvas units."""

    x: float
    y: float
    width: float
    height: float

    def edge(self, dx: int, dy: int = 0) -> Point:
        """Return the middle of an edge: (−1, 0) left, (1, 0) right, (0, 1) top, (0, −1) bottom."""
        return self.x + dx * self.width / 2, self.y + dy * self.height / 2


class Canvas:
    """A drawing surface of `WIDTH` × `HEIGHT` units, with equal units in both directions."""

    def __init__(self, inches: float) -> None:
        self.figure = Figure(figsize=(inches, inches * HEIGHT / WIDTH))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        self.axes.set_axis_off()

    def box(
        self, box: Box, text: str, *, colour: str = "0.4", size: float = 6.2, ls: object = "-",
        fill: float | None = 0.12,
    ) -> Box:  # fmt: skip
        """Draw a rounded box with a text and return the box. fill: strength of its face colour; None is white."""
        face = "white" if fill is None else shade(colour, (fill - 0.25) / 0.75)
        self._rounded(box, 0, facecolor=face, edgecolor=colour, lw=0.9, ls=ls, zorder=2 if fill else 2.1)
        self.text((box.x, box.y), text, size=size)
        return box

    def stack(self, box: Box, count: int, colour: str, zorder: float = 1.9) -> None:
        """Draw up to three shifted copies behind a box that represents `count` equal blocks."""
        for k in reversed(range(1, min(count, 4))):
            self._rounded(box, 0.9 * k, facecolor="white", edgecolor=colour, lw=0.6, zorder=zorder - 0.01 * k)

    def _rounded(self, box: Box, shift: float, **style: object) -> None:
        corner = box.x - box.width / 2 + 0.8 + shift, box.y - box.height / 2 + 0.8 + shift
        size = box.width - 1.6, box.height - 1.6
        self.axes.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.8", **style))

    def arrow(
        self, *points: Point, text: str = "", below: str = "", shift: Point = (0.0, 1.6), color: str = INK,
        ls: object = "-", lw: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw an arrow through points, with text `shift`ed from the middle of the last segment and text below it."""
        style = {"color": color, "ls": ls, "lw": lw, "zorder": 3}
        if len(points) > 2:
            self.axes.plot(*zip(*points[:-1], strict=True), **style, solid_joinstyle="miter")
        head = {"arrowstyle": "-|>,head_length=2.2,head_width=1.3", "mutation_scale": 1.4, "joinstyle": "miter"}
        self.axes.add_patch(FancyArrowPatch(*points[-2:], **head, **style, shrinkA=0, shrinkB=0))
        x, y = ((a + b) / 2 for a, b in zip(*points[-2:], strict=True))
        self.note((x + shift[0], y + shift[1]), text)
        self.note((x - 0.5, y - 1.6), below, size=4.7)

    def text(self, position: Point, text: str, *, size: float = 6.2, align: str = "center", **style: object) -> None:
        """Draw text whose centre, left end or right end is at `position`."""
        style = {"color": INK, "fontsize": size, "ha": align, "va": "center", "linespacing": 1.25, "zorder": 5, **style}
        self.axes.text(*position, text, **style)

    def note(self, position: Point, text: str, *, size: float = 5.9, align: str = "center") -> None:
        """Draw small grey text."""
        self.text(position, text, size=size, color=PALE, align=align)


@styled
def draw_architecture(arch: Architecture, path: Path) -> list[Path]:
    """Draw Sections 3.1 – 3.6 from left to right; write <path>.png, .pdf and .svg and return their paths."""
    canvas = Canvas(inches=7.2)
    streams = {stream: _stream(canvas, arch, stream) for stream in arch.streams}
    fusion = _fusion(canvas, arch, streams)
    classifier = _fused_path(canvas, arch, fusion)
    _losses(canvas, arch, streams, classifier)
    total = f"{_millions(arch.parameters['all'])} parameters · B windows of T steps, D = {arch.width}"
    canvas.note((WIDTH - 1, 1.5), total, align="right")
    # a test compares the description in the .svg file with the current network
    return plots.save(canvas.figure, path, (".png", ".pdf", ".svg"), about=repr(arch))


def _stream(canvas: Canvas, arch: Architecture, stream: str) -> tuple[Box, Box]:
    """Draw one modality up to its precision; return the boxes of mean and precision."""
    y, sub, out = ROW[stream], SUBSCRIPT[stream], OUTWARD[stream]
    colour, line = COLOUR[stream], line_style(stream)
    _snippet(canvas, stream, y)
    tower = canvas.box(Box(20.5, y, 12, 15), f"{stream}\nencoder,\nCLIP\nViT-L/14")
    canvas.note((20.5, y + 9), "App. F.1")
    canvas.note((20.5, y - 9), "frozen")
    canvas.arrow((12.1, y), tower.edge(-1), **line)
    encoder = _encoder(canvas, arch, stream)
    canvas.arrow(tower.edge(1), encoder.edge(-1), text=rf"$x_{sub}$", below=f"B×T×{arch.width}", **line)
    mean = canvas.box(Box(71.5, y - 6 * out, 11, 8), rf"$\mu_{sub}$", colour=colour, size=7.5)
    logvar = canvas.box(Box(71.5, y + 6 * out, 11, 8), rf"$\log\,\sigma^2_{sub}$", colour=colour, size=7.5)
    canvas.note((72.3, y + 13.4 * out), f"Eq. 1, {_millions(arch.parameters['head'])}")
    for head in (mean, logvar):
        canvas.arrow((encoder.edge(1)[0], y + (head.y - y) * 0.35), head.edge(-1), **line)
    precision = canvas.box(Box(93, y + 5 * out, 17, 12), _precision(arch, sub), colour=colour)
    noise = f"Student's t, ν = {arch.nu:g}" if arch.noise_model == "StudentT" else "Gaussian"
    canvas.note((93, y + 13.4 * out), f"3.2  {noise}")
    canvas.arrow(logvar.edge(1), (precision.edge(-1)[0], logvar.y), **line)
    return mean, precision


def _encoder(canvas: Canvas, arch: Architecture, stream: str) -> Box:
    """Draw Section 3.1: the attention layers as a stack, and the final LayerNorm."""
    y, colour = ROW[stream], COLOUR[stream]
    style = {"colour": colour, "fill": None, "size": 5.6}
    encoder = canvas.box(Box(49, y, 21, 22), "", colour=colour)
    layer = Box(48.4, y + 4.2, 16.6, 9)
    canvas.stack(layer, arch.layers, colour, zorder=2.05)
    canvas.box(layer, f"self-attention,\n{arch.heads} heads;\nadd, LayerNorm", **style)
    canvas.text((58.3, y - 2.0), f"×{arch.layers}", size=5.8, align="right")
    whitening = canvas.box(Box(48.4, y - 6.6, 16.6, 5.4), "LayerNorm", **style)
    canvas.arrow(layer.edge(0, -1), whitening.edge(0, 1), color=colour)
    canvas.note((46.5, y + 12.4), f"3.1  temporal encoder, {_millions(arch.parameters['encoder'])}")
    return encoder


def _snippet(canvas: Canvas, stream: str, y: float) -> None:
    """Draw a snippet as a stack of frames that show a scene or its events."""
    patch, face = canvas.axes.add_patch, {"image": "0.86", "event": "0.12"}[stream]
    for k in range(3):
        patch(Rectangle((1.2 + 1.4 * k, y - 4 - k), 7.6, 8, fc=face, ec=COLOUR[stream], lw=0.7, zorder=2 + 0.1 * k))
    left, bottom = 4.0, y - 6
    if stream == "image":
        patch(Rectangle((left, bottom), 7.6, 3, fc="0.6", lw=0, zorder=2.4))
        patch(Rectangle((left + 2.8, bottom + 1.6), 1.8, 4.2, fc=COLOUR["image"], lw=0, zorder=2.5))
    else:
        for dx, dy in ((2.6, 1.6), (2.7, 2.9), (2.6, 4.4), (2.9, 5.6), (4.6, 1.8), (4.7, 3.2), (4.6, 4.6), (4.4, 5.8)):
            patch(Rectangle((left + dx, bottom + dy), 0.5, 0.5, fc="white", lw=0, zorder=2.5))
    canvas.text((6.4, y + 6.6), stream, size=7, color=COLOUR[stream], fontweight="bold")
    canvas.note((6.4, y - 9), "snippet of\n16 frames")


def _fusion(canvas: Canvas, arch: Architecture, streams: Mapping[str, tuple[Box, Box]]) -> Box:
    """Draw Section 3.3, with arrows for the mean and the weight of each stream."""
    text = r"$z_t = \hat{w}_i\,\mu_i + \hat{w}_e\,\mu_e$" + "\n\n" + r"$\hat{w}_m = \frac{w_m}{w_i + w_e}$"
    if len(arch.streams) == 1:
        text = rf"$z_t = \mu_{SUBSCRIPT[arch.streams[0]]}$" + "\n\nsingle modality,\nweight 1"
    box = canvas.box(Box(93, MIDDLE, 20, 16), text, colour=FUSION, size=6.6)
    canvas.note((95, MIDDLE + 9.6), "3.3  fusion", align="left")
    for stream, (mean, precision) in streams.items():
        out, line = OUTWARD[stream], line_style(stream)
        end = MIDDLE + 4.5 * out
        canvas.arrow(mean.edge(1), (79.5, mean.y), (79.5, end), (box.edge(-1)[0], end), **line)
        weight = rf"$w_{SUBSCRIPT[stream]}$"
        canvas.arrow(precision.edge(0, -out), box.edge(0, out), text=weight, shift=(-2.4, 0), **line)
    return box


def _fused_path(canvas: Canvas, arch: Architecture, fusion: Box) -> Box:
    """Draw Sections 3.4 – 3.6: update, refinement and classifier; return the classifier's box."""
    line = {"color": FUSION, "lw": 1.4}
    kalman = _kalman(canvas, arch)
    canvas.arrow(fusion.edge(1), kalman.edge(-1), text="$z_t$", below=f"B×T×{arch.width}", **line)
    refine = Box(143, MIDDLE, 13.3, 16)
    canvas.stack(refine, arch.steps, FUSION)
    text = rf"$s \leftarrow s - {arch.lambda_ref:g}\,r_k$" + "\n\n" + "\n".join(arch.step_layers)
    canvas.box(refine, text if arch.steps else "none:\n$s$ unchanged", colour=FUSION, size=5.8)
    overhang = 0.9 * max(min(arch.steps - 1, 3), 0)  # of the stack beyond its front box
    canvas.note((144, MIDDLE + 9.4 + overhang), f"3.5  refinement, N = {arch.steps}")
    canvas.note((143, MIDDLE - 9.4), _millions(arch.parameters["refinement"]))
    canvas.arrow(kalman.edge(1), refine.edge(-1), text="$s_t$", below=f"B×T×{arch.width}", **line)
    classifier = canvas.box(Box(161.8, MIDDLE, 9.6, 10), "linear,\nsigmoid", colour=FUSION)
    canvas.note((160.5, MIDDLE + 6.4), "3.6  classifier")
    canvas.arrow((refine.edge(1)[0] + overhang, MIDDLE), classifier.edge(-1), **line)
    return classifier


def _kalman(canvas: Canvas, arch: Architecture) -> Box:
    """Draw Section 3.4, with a feedback loop if there is a recursion."""
    recursive = arch.temporal_update != "none"
    state = "$s_t = s_{t-1}$\n$+\\,k_t\\,(z_t - s_{t-1})$\n\n"
    text = {"kalman": state + "$q$ learned", "paper": state + "$q$ = 0", "none": "$s_t = z_t$\n\nno recursion"}
    box = canvas.box(Box(119.7, MIDDLE, 15, 16), text[arch.temporal_update], colour=FUSION, size=6.0)
    canvas.note((119.7, MIDDLE + (14.5 if recursive else 9.6)), "3.4  Kalman update" if recursive else "3.4  omitted")
    if recursive:
        top = MIDDLE + 8
        canvas.arrow((124.7, top), (124.7, top + 4.4), (114.7, top + 4.4), (114.7, top), color=FUSION)
        canvas.note((119.7, top + 2.2), "$s_{t-1}, P_{t-1}$", size=5.2)
    return box


def _losses(canvas: Canvas, arch: Architecture, streams: Mapping[str, tuple[Box, Box]], classifier: Box) -> None:
    """Draw Section 3.6: the terms of the training loss, dashed, with thin arrows from their inputs."""
    style = {"colour": LOSS, "ls": (0, (3, 1.6)), "fill": None, "size": 5.8}
    thin = {"color": LOSS, "ls": (0, (1, 1.2)), "lw": 0.8}
    if len(streams) == 2:
        text = "$L_{reg}$: cosine and norm\nlosses of $\\mu_i$ and $\\mu_e$"
        reg = canvas.box(Box(63, MIDDLE, 22.5, 8.4), text, **style)
        for stream, (mean, _) in streams.items():
            out = OUTWARD[stream]
            canvas.arrow((mean.x, mean.y - 4 * out), (mean.x, reg.y + 4.2 * out), **thin)
    for stream, (_, precision) in streams.items():
        text = f"$L_{{kl}}$: $N(\\mu_{SUBSCRIPT[stream]}, \\sigma^2_{{eff}})$\nvs. prior $N(0, 1)$"
        kl = canvas.box(Box(119, precision.y + 2 * OUTWARD[stream], 18, 8.4), text, **style)
        canvas.arrow((precision.edge(1)[0], kl.y), kl.edge(-1), **thin)
    pooled = {"topk": "mean of top-$k$ steps", "segment": "largest segment mean"}[arch.mil]
    cls = canvas.box(Box(153, 17, 26, 10.5), f"$L_{{cls}}$: cross-entropy of\n{pooled}\nand the video label", **style)
    start, end = classifier.edge(0, -1), (classifier.x, cls.edge(0, 1)[1])
    canvas.arrow(start, end, text="$p_t$", shift=(2.2, 0), color=FUSION)
    canvas.note((classifier.x - 2.6, (start[1] + end[1]) / 2), "B×T")
    regulariser = r" + \lambda_{reg}\,L_{reg}" if len(streams) == 2 else ""
    canvas.text((153, 8.4), rf"$L = L_{{cls}} + \lambda_{{kl}}\,L_{{kl}}{regulariser}$", size=6.6)


def _precision(arch: Architecture, sub: str) -> str:
    inside = r"(\sigma^2_{eff} + \epsilon)" if arch.epsilon_placement == "weights" else r"\sigma^2_{eff}"
    ratio = r"\frac{\nu}{\nu+1}\," if arch.noise_model == "StudentT" else ""
    return rf"$\sigma^2_{{eff}} = {ratio}\sigma^2_{sub}$" + f"\n\n$w_{sub} = 1 / {inside}$"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}".replace(",", " ")


def main() -> None:
    """Build the network of the flags, draw it and print the paths of the pictures."""
    parser = command_parser(__doc__, "python figure/architecture.py --dataset xd --modality image")
    add = parser.add_argument
    add("--embed_dim", type=int, metavar="N", default=768, help="embedding width D (default: 768, ViT-L/14)")
    add("--save_path", type=Path, metavar="PATH", default=ROOT / "figure" / "architecture",
        help="path without suffix (default: figure/architecture)")  # fmt: skip
    add_flags(parser, "dataset", "profile", "modality", "model", "loss")
    flags = parser.parse_args()
    options = resolve(explicit_options(flags))
    model = IEFVAD(embed_dim=flags.embed_dim, modality=options.modality, **options.group("model"))
    arch = describe(model, Objective(config=model.config, **options.group("loss")))
    print("\n".join(map(str, draw_architecture(arch, flags.save_path))))


if __name__ == "__main__":
    run_command(main, expected=(ConfigError,))
