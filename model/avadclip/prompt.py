"""Section III-D: class embeddings from learned prompts and from what the video shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.avadclip.text import PLACES, FeedForward, TextTower

PREFIX = POSTFIX = 10  # learned places before and behind the words
PROMPT_WEIGHTS = ("uniform", "classes", "none")
GLOBAL_WEIGHTS = ("logit", "probability")


class TextPrompt(nn.Module):
    """Learned vectors around the words of a class, shared by all classes."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.places = nn.Parameter(0.01 * torch.randn(PLACES, embed_dim))

    def forward(self, tower: TextTower) -> Tensor:
        """Return the text embeddings X_c (C, D) of the tower's classes.

        The start token stays at place 0, the words follow the prefix, the end token follows the postfix.
        Every other place holds a learned vector.
        """
        ends = [n + PREFIX + POSTFIX for n in tower.ends]
        x = self.places[: max(ends) + 1].repeat(len(ends), 1, 1)  # (C, L, D)
        for c, (words, n) in enumerate(zip(tower.words, tower.ends, strict=True)):
            x[c, 0] = words[0]
            x[c, PREFIX + 1 : PREFIX + n] = words[1:n]
            x[c, ends[c]] = words[n]
        return tower(x, ends)  # the tower is causal, so places after the last end token have no influence


class VideoPrompt(nn.Module):
    """Adds what the window shows to the class embeddings.

    prompt_weights: "uniform" adds the global vector g to every class. The released code does so, because its softmax
    acts on equal numbers. "classes" adds softmax(X_c · g) over the classes times g. "none" adds nothing.
    global_weights: weights of the steps in g, their "logit" (released) or its "probability" (paper).
    """

    def __init__(self, *, embed_dim: int, prompt_weights: str, global_weights: str) -> None:
        super().__init__()
        self.prompt_weights, self.global_weights = prompt_weights, global_weights
        self.feed_forward = FeedForward(embed_dim=embed_dim)

    def forward(self, text: Tensor, features: Tensor, logits: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prompted embeddings X_c + M and the class embeddings t = x + FFN(x) of them, (B, C, D) each.

        text: X_c, (C, D); features: (B, T, D); logits: (B, T, 1); used: (B, T), True at steps that count.
        """
        prompted = text + self.prompt(text, features, logits, used)
        return prompted, prompted + self.feed_forward(prompted)

    def prompt(self, text: Tensor, features: Tensor, logits: Tensor, used: Tensor) -> Tensor:
        """Return the prompt M: (B, C, D), or (B, 1, D) if equal for all classes; arguments as in `forward`."""
        weights = (logits if self.global_weights == "logit" else logits.sigmoid()) * used[..., None]
        g = F.normalize(weights.transpose(1, 2) @ features, dim=-1)  # (B, 1, D)
        if self.prompt_weights == "none":
            return torch.zeros_like(g)
        return (g @ text.T).softmax(-1).transpose(1, 2) * g if self.prompt_weights == "classes" else g
