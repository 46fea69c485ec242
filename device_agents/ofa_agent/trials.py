"""Trials of forms: measures which ways to write the models of a kit are the fastest on this machine."""

import math
import random
import statistics
import time

from .core_use import REPEATED_SHARE, is_disturbed
from .medians import t_975
from .reading import now

MIN_ROUNDS = 3
MAX_ROUNDS = 7
BUDGET_S = 15.0  # all trials together, or ...
BUDGET_SHARE = 0.1  # ... this share of the time that the models will need, whichever is larger
SMALLEST_GAIN = 0.01  # a smaller one, as a fraction, is not worth another form


class Trial:
    """One candidate: `forms` (group -> form) against the plain form, on the models `keys`."""

    def __init__(self, forms, keys):
        self.forms, self.keys = forms, keys
        self.rounds = []  # mean over the models of log(plain / form) of each round
        self.error = None  # the form does not run
        self.plain_error = None

    def add(self, pairs):
        """Add a round: (plain, form) for each model, as records of visits."""
        for plain, form in pairs:
            self.error = self.error or form.get("error")
            self.plain_error = self.plain_error or plain.get("error")
        if not (self.error or self.plain_error):
            logs = [math.log(_median(plain) / _median(form)) for plain, form in pairs]
            self.rounds.append(statistics.mean(logs))

    @property
    def half_width(self):
        """Half of the 95% confidence interval of the mean of `rounds`; None if unknown."""
        if len(self.rounds) < 2:
            return None
        return t_975(len(self.rounds)) * statistics.stdev(self.rounds) / math.sqrt(len(self.rounds))

    @property
    def wins(self):
        """Whether the form is faster than the plain form by more than the noise, or only the form runs."""
        if self.error or not self.rounds:
            return bool(self.plain_error and not self.error)
        noise = self.half_width
        return noise is not None and statistics.mean(self.rounds) > max(noise, math.log(1 + SMALLEST_GAIN))

    @property
    def is_decided(self):
        """Whether more rounds would not change the result."""
        if self.error or self.plain_error:
            return True
        if len(self.rounds) < MIN_ROUNDS:
            return False
        mean = statistics.mean(self.rounds)
        return self.wins or mean + self.half_width < math.log(1 + SMALLEST_GAIN)

    def record(self):
        """Return the entry in the results."""
        record = {"forms": self.forms, "models": len(self.keys), "rounds": len(self.rounds), "wins": self.wins}
        if self.rounds:
            record["gain"] = round(math.exp(statistics.mean(self.rounds)), 4)
            record["half_width"] = None if self.half_width is None else round(self.half_width, 4)
        if self.error:
            record["error"] = self.error
        return record


class Repeating:
    """Calls `visit(model)`, and again while other programs disturb it, for at most a share of the time.

    Plain model and form are compared in pairs, so one disturbed visit would decide a round.
    """

    def __init__(self, visit, threads):
        self.visit, self.threads = visit, threads
        self.used_s = self.repeated_s = 0.0
        self.repeated = 0

    def __call__(self, model):
        """Return the record of a visit."""
        while True:
            record = self.visit(model)
            self.used_s += record["seconds"]
            repeated_s = self.repeated_s + record["seconds"]
            allowed_s = REPEATED_SHARE * max(self.used_s, BUDGET_S)
            if not is_disturbed(record, self.threads) or repeated_s > allowed_s:
                return record
            self.repeated_s = repeated_s
            self.repeated += 1


def choose_forms(kit, visit, seed, min_visits):
    """Run the trials of a kit and return the record `forms`.

    `visit(model)` measures one entry of the manifest. `min_visits` is the smallest number of visits of the measurement
    that follows.
    """
    begin, visited = time.monotonic(), 0
    trials = [Trial(trial["forms"], trial["keys"]) for trial in kit.trials]
    for number in range(MAX_ROUNDS):
        open_trials = [trial for trial in trials if not trial.is_decided]
        spent_s = time.monotonic() - begin
        visit_s = spent_s / visited if visited else 0.0
        budget_s = max(BUDGET_S, BUDGET_SHARE * visit_s * min_visits)
        if not open_trials or (number >= 2 and spent_s * (number + 1) / number > budget_s):
            break
        rng = random.Random("%d:forms:%d" % (seed, number))
        pairs = [(trial, key) for trial in open_trials for key in trial.keys]
        rng.shuffle(pairs)
        measured = {id(trial): [] for trial in open_trials}
        for trial, key in pairs:
            models = [kit.model(key, {}), kit.model(key, trial.forms)]
            order = rng.sample((0, 1), 2)  # neither form always runs first
            records = {i: visit(models[i]) for i in order}
            measured[id(trial)].append((records[0], records[1]))
            visited += 2
        for trial in open_trials:
            trial.add(measured[id(trial)])
    chosen, gains = {}, {}
    for trial in trials:
        gain = statistics.mean(trial.rounds) if trial.rounds else math.inf
        if trial.wins and all(gain > gains.get(group, 0.0) for group in trial.forms):
            chosen.update(trial.forms)
            gains.update(dict.fromkeys(trial.forms, gain))
    return {
        "type": "forms",
        "time": now(),
        "chosen": chosen,
        "trials": [trial.record() for trial in trials],
        "seconds": round(time.monotonic() - begin, 3),
    }


def _median(record):
    return statistics.median(record["samples_ns"])
