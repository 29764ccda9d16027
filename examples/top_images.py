"""Which of many pictures excite the channels of a layer most, and what of them: files in a folder, streamed."""

from pathlib import Path

import numpy as np
from PIL import Image

from seewhy import inside, samples

# A folder of pictures: crops of the sample photos. Any folder of yours will do.
folder = Path("crops")
folder.mkdir(exist_ok=True)
draw = np.random.default_rng(0)
for name in samples.PHOTOS:
    photo = np.asarray(samples.photo(name))
    for i in range(40):
        top, left = (draw.integers(0, side - 160) for side in photo.shape[:2])
        Image.fromarray(photo[top : top + 160, left : left + 160]).save(folder / f"{name}-{i:02}.png")

explainer = samples.explainer()  # or Explainer(your_network, transform=...)
found = inside.top_images(explainer, folder, "_blocks.5", channels=range(8), k=6)
print(found)
for channel, files, values in zip(found.channels, found.sources, found.values, strict=True):
    print(f"channel {channel}: {Path(files[0]).name} ({values[0]:.2f}), {Path(files[1]).name} ({values[1]:.2f}), …")
found.save("top_images.png")
