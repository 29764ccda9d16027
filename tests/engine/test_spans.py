"""Where positions are in sequences of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.engine.spans import as_tokens
from seewhy.layouts import Layout

BATCH_FIRST, TOKENS_FIRST = torch.arange(2 * 14 * 5).view(2, 14, 5), torch.arange(14 * 2 * 5).view(14, 2, 5)


@pytest.mark.parametrize(("output", "tokens"), [(BATCH_FIRST, BATCH_FIRST), (TOKENS_FIRST, TOKENS_FIRST.movedim(1, 0))])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_function_tells_where_positions_are_among_tokens(output: Tensor, tokens: Tensor, first: int) -> None:
    picks = tokens[:, first : first + 12].mT.unflatten(2, (3, 4))
    found = as_tokens(Layout("given", (3, 4), picks=picks), tuple(output.shape))
    assert found == (14, Layout("given", (3, 4), first))
    assert as_tokens(Layout("given", (3, 4), picks=picks.flip(3)), tuple(output.shape)) == (14, None)
    assert as_tokens(Layout("given", (3, 4), picks=picks), (2, 14, 5, 1)) is None
