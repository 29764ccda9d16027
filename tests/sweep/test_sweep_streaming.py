"""Memory stays flat while 10,000 images go by."""

import psutil
import pytest
import torch

from seewhy import Explainer, inside
from seewhy.testing import small_cnn

pytestmark = pytest.mark.sweep
COUNT, AFTER, SIZE = 10_000, 2_000, 64
ALLOWED = 20_000_000  # bytes; the images themselves take 490 MB as float32, and a row of features 64 B

JOBS = {
    "embed": lambda explainer, images: inside.embed(explainer, images, method=None, batch_size=32),
    "top_images": lambda explainer, images: inside.top_images(explainer, images, "left", k=5, batch_size=32),
    "cka": lambda explainer, images: inside.cka(explainer, images, ["left", "body"], batch_size=32),
}


@pytest.mark.parametrize("job", JOBS)
def test_memory_is_flat_while_images_stream(job):
    seen: list[int] = []

    def images():
        generator = torch.Generator().manual_seed(0)
        for i in range(COUNT):
            if i in (AFTER, COUNT - 1):
                seen.append(psutil.Process().memory_info().rss)
            yield torch.rand(3, SIZE, SIZE, generator=generator)

    JOBS[job](Explainer(small_cnn()), images())
    assert len(seen) == 2
    print(f"\n{job}: {(seen[1] - seen[0]) / 1e6:.1f} MB more from image {AFTER:,} to {COUNT:,}")
    assert seen[1] - seen[0] < ALLOWED
