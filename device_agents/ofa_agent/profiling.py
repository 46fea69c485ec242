"""The record `profile`: the times of the kernels of one model, by the runtime's own profiler."""

NOTHING = "the worker has no profile"


def profile_record(visitor, request, timeout_s):
    """Ask the worker for the profile of a model, and return the record. A failure is a record without kernels."""
    lost_before = visitor.lost_in_a_row
    answer = visitor.visit(request, timeout_s, {})
    visitor.lost_in_a_row = lost_before  # a crash of the profiler says nothing about the models
    record = {"type": "profile", "key": request["key"], "kernels": None}
    if is_valid(answer):
        record.update({name: answer[name] for name in ("kernels", "runs", "whole_ns")})
    else:
        why = answer.get("error") or answer.get("why")
        record["why"] = why if isinstance(why, str) else NOTHING
    return dict(record, seconds=answer["seconds"])


def is_valid(answer):
    """Return whether an answer has a profile. The worker may be a program of somebody else."""
    kernels = answer.get("kernels")
    if "error" in answer or not isinstance(kernels, list) or not kernels:
        return False
    numbers = [answer.get(name) for name in ("runs", "whole_ns")]
    return all(is_natural(number) and number > 0 for number in numbers) and all(map(is_kernel, kernels))


def is_kernel(kernel):
    """Return whether a value is a kernel of a profile."""
    if not isinstance(kernel, dict) or not all(isinstance(kernel.get(name), str) for name in ("name", "kind")):
        return False
    return is_natural(kernel.get("ns")) and is_natural(kernel.get("calls")) and kernel["calls"] > 0


def is_natural(value):
    """Return whether a value is a whole number, 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
