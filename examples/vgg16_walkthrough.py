"""A VGG-16, a table of class names and one photo: four panels of a class, and where the top prediction comes from.

With a network the trained weights are downloaded once. Where there is none, random weights show that everything runs:
the maps then say nothing about the photo.
"""

import socket

import torch
import torchvision
from matplotlib import pyplot as plt
from PIL import Image
from torchvision.transforms import v2

from seewhy import Explainer, samples

socket.setdefaulttimeout(10)  # a host without a network says so soon
weights = torchvision.models.VGG16_Weights.IMAGENET1K_V1
try:
    model = torchvision.models.vgg16(weights=weights)
except OSError as error:
    print(f"No trained VGG-16 can be had here ({error}): random weights, whose maps say nothing about the photo.")
    torch.manual_seed(0)
    model = torchvision.models.vgg16(weights=None)

# The photo is squashed to 224 x 224 and not cropped, so that maps can be laid over all of it.
transform = v2.Compose(
    [
        v2.ToImage(),
        v2.Resize((224, 224)),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)
class_names = dict(enumerate(weights.meta["categories"]))  # the table {label: name}
explainer = Explainer(model, transform=transform, class_names=class_names)

samples.photo("cat").save("cat.png")  # any photo will do

# One class, by its label or by its name, in four ways: one forward pass and two backward passes.
methods = ["saliency", "guided_backprop", "grad_cam", "guided_grad_cam"]
by_label = explainer.explain("cat.png", methods, target=281, layer="features")
by_name = explainer.explain("cat.png", methods, target="tabby", layer="features")
assert all((by_label[method].map == by_name[method].map).all() for method in methods)

figure, axes = plt.subplots(1, 4, figsize=(12, 4))
for method, ax in zip(methods, axes, strict=True):
    by_name[method].plot(ax=ax, style="color" if method.startswith("guided") else None)
figure.savefig("vgg16_panels.png", dpi=150, bbox_inches="tight")

# The top prediction: the three best classes decoded, and its Grad-CAM over the photo at its own size.
for prediction in explainer.predict("cat.png", top=3)[0]:
    print(f"{prediction.index:4} {prediction.name:20} {prediction.probability:.1%}")
top = explainer.explain("cat.png", "grad_cam", layer="features")
Image.fromarray(top.overlay(on="cat.png", alpha=0.4)).save("vgg16_grad_cam.png")
print("vgg16_panels.png and vgg16_grad_cam.png are written.")
