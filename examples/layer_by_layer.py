"""One photo through a network, layer by layer: a tile for each channel, and how silence grows with depth."""

import socket

import torch
import torchvision
from torch import nn

from seewhy import Explainer, inside, samples

# The sample network: sixteen channels of each convolution that answer most, and all of one layer.
explainer, cat = samples.explainer(), samples.photo("cat")
found = inside.channels(explainer, cat, top=16)
print(found)
found.save("channels.png")
inside.channels(explainer, cat, "_blocks.3").save("channels_of_a_block.png")

# What owes most to the score of a class: gradient times activation.
tabby = inside.channels(explainer, cat, "_act1", top=16, by="gradient", target="tabby")
print(f"channels of {tabby.layers[0]} for {tabby.target}: {tabby.numbers['_act1'].tolist()}")

# Silence, after each ReLU.
depth = inside.channels(explainer, cat, nn.ReLU6)
for name, dead, zeros, entropy in zip(depth.layers, depth.dead, depth.zeros, depth.entropy, strict=True):
    print(f"{name:16}  dead {dead:4.0%}  zeros {zeros:4.0%}  entropy {entropy:.2f}")
depth.plot_statistics().figure.savefig("silence.png", dpi=150)

# A VGG by the numbers of its layers, as 4 x 4 tiles. Where there is no network its weights are random.
socket.setdefaulttimeout(10)
weights = torchvision.models.VGG16_BN_Weights.IMAGENET1K_V1
try:
    model = torchvision.models.vgg16_bn(weights=weights)
except OSError as error:
    print(f"No trained VGG-16 can be had here ({error}): random weights.")
    torch.manual_seed(0)
    model = torchvision.models.vgg16_bn(weights=None)
vgg = Explainer(model, transform=weights.transforms(), class_names=weights.meta["categories"])
by_number = inside.channels(vgg, cat, ["features.0", "features.20", "features.40"], channels=range(16))
print(by_number)
by_number.save("vgg.png")
