"""Explain a photo: where does the network look, and for what?"""

from pathlib import Path

from seewhy import samples

explainer = samples.explainer()
coffee = samples.photo("coffee")

for prediction in explainer.predict(coffee, top=3)[0]:
    print(f"{prediction.name:20} {prediction.probability:.1%}")

explanations = explainer.explain(coffee, ["saliency", "grad_cam"])
explanations.save("coffee.png")
print(explanations["grad_cam"], Path("coffee.png").resolve().name)
