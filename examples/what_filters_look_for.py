"""What the filters of a network look for, early, in the middle and late; a class; and a photo's dream."""

from seewhy import inside, samples

explainer = samples.explainer()  # or Explainer(your_network, transform=...)

# A whole set of filters climbs in one batch. More steps and size=128 give finer pictures.
for layer in ("_blocks.1", "_blocks.5", "_blocks.12"):
    found = inside.maximize(explainer, layer, channels=range(16), size=64, steps=32)
    risen = (found.history[-1] > found.history[0]).sum()
    print(f"{layer}: {risen} of {len(found)} filters answer more than they did to noise")
    found.save(f"filters{layer}.png")

# A class, and a sum of objectives: an image for each.
espresso = inside.Logit("espresso")
both = [espresso, espresso - inside.Logit("cup")]
inside.maximize(explainer, objective=both, method="maco", size=96, steps=32).save("classes.png")

inside.deep_dream(explainer, samples.photo("cat"), "_blocks.7", octaves=2).save("dream.png")
print("The pictures are written.")
