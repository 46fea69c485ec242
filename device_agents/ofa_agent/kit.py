"""The kit: a folder with `manifest.json` and the models that it lists."""

import json
import os

from .errors import Fatal
from .inputs import descriptions, in_folder
from .reading import one_line

FORMATS = (1, 2, 3)  # 2: with trials of forms, 3: with exact values, spans or a profile

SPREAD = ("spread_bytes", "weight_bytes")  # settings for blocks of a network (`copies.py`)


class Kit:
    """A kit with a valid manifest. Raises `Fatal`."""

    def __init__(self, folder):
        self.folder = folder
        path = os.path.join(folder, "manifest.json")
        try:
            with open(path, encoding="utf-8") as file:
                manifest = json.load(file)
            if manifest["format"] not in FORMATS:
                raise Fatal(
                    "%s has the format %s, but this agent reads up to %d" % (path, manifest["format"], FORMATS[-1]),
                    usage=True,
                )
            self.models = {model["key"]: dict(model, inputs=descriptions(model)) for model in manifest["models"]}
            self.run = {
                "type": "run",
                "format": manifest["format"],
                "created": manifest["created"],
                "settings": manifest["settings"],
                "about": manifest["about"],
                "models": {key: model["sha256"] for key, model in self.models.items()},
            }
            for name in ("ops", "forms", "profile"):  # so that a table follows from the results alone
                if name in manifest:
                    self.run[name] = manifest[name]
            self.profile = manifest.get("profile")  # the key of the model that the runtime is to profile
            if self.profile is not None:
                self.models[self.profile]
            self.has_forms = "forms" in manifest
            self.trials = manifest.get("forms", {}).get("trials", [])
            self.chosen = {}  # group of layers -> form
            self.has_encodings = any("encodings" in model for model in self.models.values())
            self.encoding = None  # of int8, where the kit has several
            self.runtime = manifest["settings"]["runtime"]
            wheels = manifest.get("wheels")
            self.wheels = None if wheels is None else (wheels["for"], dict(wheels["files"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Fatal("%s cannot be read: %s" % (path, one_line(error)), usage=True) from error

    def request(self, key):
        """Return the request that makes a worker run a model in the chosen form."""
        return self.model(key, self.chosen)

    def model(self, key, forms):
        """Return the request that makes a worker run a model. `forms` maps groups of layers to forms."""
        model = self.models[key]
        variants = model.get("variants", ())
        groups = {group for variant in variants for group in variant["forms"]}
        wanted = {group: form for group, form in forms.items() if group in groups}
        for variant in variants:
            if variant["forms"] == wanted:
                model = dict(model, **{name: value for name, value in variant.items() if name != "forms"})
        model = dict(model, **model.get("encodings", {}).get(self.encoding, {}))
        folder = os.path.join(self.folder, "models")
        path = os.path.join(folder, os.path.basename(model["file"]))
        is_network = model["key"] == self.profile
        spread = {} if is_network else {name: self.run["settings"].get(name, 0) for name in SPREAD}
        return dict(model, path=path, inputs=in_folder(model["inputs"], folder), **spread)
