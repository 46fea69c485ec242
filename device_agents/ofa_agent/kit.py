"""The kit: a folder with `manifest.json` and the models that it lists."""

import hashlib
import json
import os

from .errors import Damaged, Fatal
from .inputs import descriptions
from .reading import one_line

FORMAT = 1


class Kit:
    """A kit with a valid manifest. Raises `Fatal`."""

    def __init__(self, folder):
        self.folder = folder
        path = os.path.join(folder, "manifest.json")
        try:
            with open(path, encoding="utf-8") as file:
                manifest = json.load(file)
            if manifest["format"] != FORMAT:
                raise Fatal(
                    "%s has the format %s, but this agent reads %d" % (path, manifest["format"], FORMAT), usage=True
                )
            self.models = {model["key"]: dict(model, inputs=descriptions(model)) for model in manifest["models"]}
            self.run = {
                "type": "run",
                "format": FORMAT,
                "created": manifest["created"],
                "settings": manifest["settings"],
                "about": manifest["about"],
                "models": {key: model["sha256"] for key, model in self.models.items()},
            }
            if "ops" in manifest:  # so that a table follows from the results alone
                self.run["ops"] = manifest["ops"]
            self.runtime = manifest["settings"]["runtime"]
            wheels = manifest.get("wheels")
            self.wheels = None if wheels is None else (wheels["for"], dict(wheels["files"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Fatal("%s cannot be read: %s" % (path, one_line(error)), usage=True) from error

    def request(self, key):
        """Return the request that makes a worker run a model."""
        model = self.models[key]
        return dict(model, path=os.path.join(self.folder, "models", os.path.basename(model["file"])))


def verified(path, sha256):
    """Return the bytes of a file after a check of their hash. Raises `Damaged`.

    The runtime gets these bytes, so the file cannot change between check and run.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Damaged("%s cannot be read: %s" % (os.path.basename(path), error.strerror)) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Damaged("%s is damaged: its SHA-256 is %s, not %s" % (os.path.basename(path), found, sha256))
    return data
