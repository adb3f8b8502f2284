"""Figure 1: the network as a block diagram, every number in it read from the network that is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vad import plotting
from vad.diagram import Box, Sheet
from vad.plotting import COLOUR, LINE, styled

WIDTH, HEIGHT = 168, 82  # of the sheet, in its own units
ROW = {"image": 62.0, "event": 20.0}  # height of a stream's middle
MIDDLE = 41.0
OUTWARD = {"image": 1, "event": -1}  # the variance path runs on the far side of the mean's
SIGN = {"image": "i", "event": "e"}
LOSS = "0.35"


@dataclass(frozen=True)
class Architecture:
    """What a network is made of, as far as the drawing shows it."""

    streams: tuple[str, ...]  # "image", "event"
    width: int  # D
    layers: int  # of self-attention in each encoder
    heads: int
    noise_model: str
    nu: float
    epsilon_placement: str
    temporal_update: str
    steps: int  # refinement steps N
    step_layers: tuple[str, ...]  # names of the layers of one step
    lambda_ref: float
    mil: str
    parameters: Mapping[str, int]  # encoder, head (of one stream), temporal, refinement, classifier, all


@styled
def draw_architecture(facts: Architecture, path_without_suffix: Path) -> list[Path]:
    """The network with its streams, Sections 3.1 – 3.6 from left to right, as .png, .pdf and .svg."""
    sheet = Sheet(WIDTH, HEIGHT, inches=7.2)
    ends = {stream: _stream(sheet, facts, stream) for stream in facts.streams}
    fusion = _fusion(sheet, facts, ends)
    classifier = _fused_path(sheet, facts, fusion)
    _losses(sheet, facts, ends, classifier)
    total = f"{_millions(facts.parameters['all'])} parameters · B windows of T steps, D = {facts.width}"
    sheet.note((WIDTH - 1, 1.5), total, align="right")
    # kept inside the file, so that a test can tell a drawing of another network
    return plotting.save(sheet.figure, path_without_suffix, (".png", ".pdf", ".svg"), about=repr(facts))


def _stream(sheet: Sheet, facts: Architecture, stream: str) -> tuple[Box, Box, Box]:
    """One modality up to its precision. Returns the boxes of the mean, the log-variance and the precision."""
    y, sign, out = ROW[stream], SIGN[stream], OUTWARD[stream]
    look = {"colour": COLOUR[stream], "ls": LINE[stream]}
    _snippet(sheet, stream, y)
    tower = sheet.box(Box(20.5, y, 12, 15), f"CLIP\nViT-L/14\nof {stream}s".replace("images", "frames"))
    sheet.note((20.5, y + 9), "App. F.1")
    sheet.note((20.5, y - 9), "frozen")
    sheet.arrow((12.1, y), tower.left, **look)
    encoder = _encoder(sheet, facts, stream)
    sheet.arrow(tower.right, encoder.left, rf"$x_{sign}$", below=_shape(facts), **look)
    mean = sheet.box(Box(71.5, y - 6 * out, 11, 8), rf"$\mu_{sign}$", colour=COLOUR[stream], size=7.5)
    logvar = sheet.box(Box(71.5, y + 6 * out, 11, 8), rf"$\log\,\sigma^2_{sign}$", colour=COLOUR[stream], size=7.5)
    sheet.note((72.3, y + 13.4 * out), f"Eq. 1, linear, {_millions(facts.parameters['head'])}")
    for head in (mean, logvar):
        sheet.arrow((encoder.right[0], y + (head.y - y) * 0.35), head.left, **look)
    precision = sheet.box(Box(93, y + 5 * out, 17, 12), _precision(facts, sign), colour=COLOUR[stream])
    sheet.note((93, y + 13.4 * out), f"3.2  {_noise(facts)}")
    sheet.arrow(logvar.right, (precision.left[0], logvar.y), **look)
    return mean, logvar, precision


def _encoder(sheet: Sheet, facts: Architecture, stream: str) -> Box:
    """Section 3.1: the attention layers as a stack, and the last LayerNorm."""
    y, colour = ROW[stream], COLOUR[stream]
    encoder = sheet.box(Box(49, y, 21, 22), "", colour=colour)
    layer = Box(48.4, y + 4.2, 16.6, 9)
    sheet.stack(layer, facts.layers, colour, inside=True)
    sheet.box(layer, f"self-attention,\n{facts.heads} heads;\nadd, LayerNorm", colour=colour, fill=None, size=5.6)
    sheet.text((58.3, y - 2.0), f"×{facts.layers}", size=5.8, align="right")
    whitening = sheet.box(Box(48.4, y - 6.6, 16.6, 5.4), "LayerNorm", colour=colour, fill=None, size=5.6)
    sheet.arrow(layer.bottom, whitening.top, colour=colour)
    sheet.note((46.5, y + 12.4), f"3.1  temporal encoder, {_millions(facts.parameters['encoder'])}")
    return encoder


def _snippet(sheet: Sheet, stream: str, y: float) -> None:
    """Sixteen frames as offset cards: a scene, or the points where it moved."""
    face = {"image": "0.86", "event": "0.12"}[stream]
    for k in range(3):
        sheet.rectangle((1.2 + 1.4 * k, y - 4 - k), 7.6, 8, facecolor=face, edgecolor=COLOUR[stream], lw=0.7,
                        zorder=2 + 0.1 * k)  # fmt: skip
    left, bottom = 4.0, y - 6
    if stream == "image":
        sheet.rectangle((left, bottom), 7.6, 3, facecolor="0.6", lw=0, zorder=2.4)
        sheet.rectangle((left + 2.8, bottom + 1.6), 1.8, 4.2, facecolor=COLOUR["image"], lw=0, zorder=2.5)
    else:
        for dx, dy in ((2.6, 1.6), (2.7, 2.9), (2.6, 4.4), (2.9, 5.6), (4.6, 1.8), (4.7, 3.2), (4.6, 4.6), (4.4, 5.8)):
            sheet.rectangle((left + dx, bottom + dy), 0.5, 0.5, facecolor="white", lw=0, zorder=2.5)
    sheet.text((6.4, y + 6.6), stream, size=7, colour=COLOUR[stream], weight="bold")
    sheet.note((6.4, y - 9), "16 frames\na snippet")


def _fusion(sheet: Sheet, facts: Architecture, ends: Mapping[str, tuple[Box, Box, Box]]) -> Box:
    """Section 3.3, with the mean of each stream and its weight as arrows."""
    text = r"$z_t = \hat{w}_i\,\mu_i + \hat{w}_e\,\mu_e$" + "\n\n" + r"$\hat{w}_m = \frac{w_m}{w_i + w_e}$"
    if len(facts.streams) == 1:
        text = rf"$z_t = \mu_{SIGN[facts.streams[0]]}$" + "\n\none stream,\nweight 1"
    box = sheet.box(Box(93, MIDDLE, 20, 16), text, colour=COLOUR["fusion"], size=6.6)
    sheet.note((95, MIDDLE + 9.6), "3.3  fusion", align="left")
    for stream, (mean, _, precision) in ends.items():
        out, look = OUTWARD[stream], {"colour": COLOUR[stream], "ls": LINE[stream]}
        at = MIDDLE + 4.5 * out
        sheet.path([mean.right, (79.5, mean.y), (79.5, at), (box.left[0], at)], **look)
        start, end = (precision.bottom, box.top) if out > 0 else (precision.top, box.bottom)
        sheet.arrow(start, end, rf"$w_{SIGN[stream]}$", shift=(-2.4, 0), **look)
    return box


def _fused_path(sheet: Sheet, facts: Architecture, fusion: Box) -> Box:
    """Sections 3.4 – 3.6: time, refinement, classifier. Returns the classifier's box."""
    look = {"colour": COLOUR["fusion"], "lw": 1.4}
    kalman = _kalman(sheet, facts)
    sheet.arrow(fusion.right, kalman.left, "$z_t$", below=_shape(facts), **look)
    refine = Box(143, MIDDLE, 13.3, 16)
    sheet.stack(refine, facts.steps, COLOUR["fusion"])
    step = "\n".join(facts.step_layers)
    text = rf"$s \leftarrow s - {facts.lambda_ref:g}\,r_k$" + f"\n\n{step}" if facts.steps else "no step:\n$s$ as it is"
    sheet.box(refine, text, colour=COLOUR["fusion"], size=5.8)
    behind = 0.9 * max(min(facts.steps - 1, 3), 0)  # how far the cards of the stack reach out
    sheet.note((144, MIDDLE + 9.4 + behind), f"3.5  refinement, N = {facts.steps}")
    sheet.note((143, MIDDLE - 9.4), _millions(facts.parameters["refinement"]))
    sheet.arrow(kalman.right, refine.left, "$s_t$", below=_shape(facts), **look)
    classifier = sheet.box(Box(161.8, MIDDLE, 9.6, 10), "linear,\nsigmoid", colour=COLOUR["fusion"])
    sheet.note((160.5, MIDDLE + 6.4), "3.6  classifier")
    sheet.arrow((refine.right[0] + behind, MIDDLE), classifier.left, **look)
    return classifier


def _kalman(sheet: Sheet, facts: Architecture) -> Box:
    """Section 3.4: the state and its precision fed back to the next step, unless there is no recursion."""
    colour, recursive = COLOUR["fusion"], facts.temporal_update != "none"
    state = "$s_t = s_{t-1}$\n$+\\,k_t\\,(z_t - s_{t-1})$\n\n"
    text = {"kalman": state + "$q$ learned", "paper": state + "$q$ = 0", "none": "$s_t = z_t$\n\nno recursion"}
    box = sheet.box(Box(119.7, MIDDLE, 15, 16), text[facts.temporal_update], colour=colour, size=6.0)
    sheet.note((119.7, MIDDLE + (14.5 if recursive else 9.6)), "3.4  Kalman update" if recursive else "3.4  left out")
    if recursive:
        top = MIDDLE + 8
        sheet.path([(124.7, top), (124.7, top + 4.4), (114.7, top + 4.4), (114.7, top)], colour=colour)
        sheet.note((119.7, top + 2.2), "$s_{t-1}, P_{t-1}$")
    return box


def _losses(sheet: Sheet, facts: Architecture, ends: Mapping[str, tuple[Box, Box, Box]], classifier: Box) -> None:
    """Section 3.6: what training minimises, dashed, with thin lines from what each term reads."""
    look = {"colour": LOSS, "dashed": True, "fill": None, "size": 5.8}
    thin = {"colour": LOSS, "ls": (0, (1, 1.2)), "lw": 0.8}
    if len(ends) == 2:
        reg = sheet.box(Box(63, MIDDLE, 22.5, 8.4), "$L_{reg}$: angle and norm\nof $\\mu_i$ against $\\mu_e$", **look)
        for stream, (mean, _, _) in ends.items():
            out = OUTWARD[stream]
            sheet.arrow((mean.x, mean.y - 4 * out), (mean.x, reg.y + 4.2 * out), **thin)
    for stream, (_, _, precision) in ends.items():
        sign = SIGN[stream]
        text = f"$L_{{kl}}$: $N(\\mu_{sign}, \\sigma^2_{{eff}})$\nagainst $N(0, 1)$"
        kl = sheet.box(Box(119, precision.y + 2 * OUTWARD[stream], 18, 8.4), text, **look)
        sheet.arrow((precision.right[0], kl.y), kl.left, **thin)
    rule = {"topk": "mean of the\ntop-$k$ steps", "segment": "largest\nsegment mean"}[facts.mil]
    cls = sheet.box(Box(153, 17, 26, 10.5), f"$L_{{cls}}$: {rule}\nagainst the video's label", **look)
    end = (classifier.x, cls.y + 5.25)
    sheet.arrow(classifier.bottom, end, "$p_t$", shift=(2.2, 0), colour=COLOUR["fusion"])
    sheet.note((classifier.x - 2.6, (classifier.bottom[1] + end[1]) / 2), "B×T")
    regulariser = r" + \lambda_{reg}\,L_{reg}" if len(ends) == 2 else ""
    sheet.text((153, 8.4), rf"$L = L_{{cls}} + \lambda_{{kl}}\,L_{{kl}}{regulariser}$", size=6.6)


def _shape(facts: Architecture) -> str:
    return f"B×T×{facts.width}"


def _precision(facts: Architecture, sign: str) -> str:
    inside = r"(\sigma^2_{eff} + \epsilon)" if facts.epsilon_placement == "weights" else r"\sigma^2_{eff}"
    ratio = r"\frac{\nu}{\nu+1}\," if facts.noise_model == "StudentT" else ""
    return rf"$\sigma^2_{{eff}} = {ratio}\sigma^2_{sign}$" + f"\n\n$w_{sign} = 1 / {inside}$"


def _noise(facts: Architecture) -> str:
    return f"Student's t, ν = {facts.nu:g}" if facts.noise_model == "StudentT" else "Gaussian"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}".replace(",", " ")
