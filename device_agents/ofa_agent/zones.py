"""Thermal zones: which of them are temperatures, in which unit, and whether to believe them.

The kernel lists them in `/sys/class/thermal`, each with a type and a number. Beside the sensors of the processor there
are sensors of batteries and radios, sensors that were never fitted (127 degrees, 0, -274), estimates that never change
(`PMIC-Die` is always 100), and numbers that are no temperatures: the charge of the battery in percent (`soc`), currents
(`ibat-high`) and voltages (`vbat_adc`).
"""

import re

NOT_FITTED_C = 125.0  # what a sensor reports that is not there; a chip switches itself off before
DECI, MILLI = 200, 1250  # the kernel's unit is the millidegree; old kernels have degrees or tenths (20 C to 125 C)

# Types in small letters, with `-` for `_`.
NO_TEMPERATURE = re.compile(r"socd?|pmic.*|(ibat|vbat|vph|bcl).*|.+-(ibat|vbat|vph|bcl)(-.*)?")
PROCESSOR = re.compile(
    r"(ap|[bm])?cpu.*|gpu.*|soc\d*-(therm|thm|dts|max|temp).*|core-?(cluster|thermal).*|cluster\d.*|cls\d.*"
    r"|(big|mid|little|big-mid|g3d|tpu|npu|package|center|tj|mpu|main\d)(-?therm.*)?|(big|mid|little)-?core.*"
    r"|x86-pkg-temp|tcpu(-.*)?|b0d4|tsens.*|mtkts[cg]pu.*|exynos.*|.*-tmu|bcm\d+-thermal|imx-thermal.*|sunxi-therm.*"
    r"|(aml|meson|armada)-thermal.*"
)


def in_degrees(number, tenths):
    """Return the degrees Celsius that a zone means. `tenths`: whether it may report tenths of a degree."""
    if number >= MILLI:
        return number / 1000
    return number / (10 if tenths else 1000) if number >= DECI else float(number)


class Thermometer:
    """The temperature of a machine, from all readings so far.

    A zone of a processor counts at once. A zone of another type counts from when it has changed: it may be no sensor.
    """

    def __init__(self):
        self.first = {}
        self.moved = set()

    def hottest_c(self, zones):
        """Return the temperature of the hottest zone that counts; None without one.

        `zones` has a name, the type and the number of each zone. A type that cannot be read is None.
        """
        of_processor, others = self._counting(zones)
        return max(of_processor + others, default=None)

    def processor_c(self, zones):
        """Return the temperature of the processor, or else of the hottest zone: values to compare with later ones."""
        of_processor, others = self._counting(zones)
        return max(of_processor or others, default=None)

    def _counting(self, zones):
        typed = [(name, (kind or "").lower().replace("_", "-"), number) for name, kind, number in zones]
        sensors = [zone for zone in typed if not NO_TEMPERATURE.fullmatch(zone[1])]
        in_millidegrees = any(number >= MILLI for _, _, number in sensors)
        of_processor, others = [], []
        for name, kind, number in sensors:
            known = PROCESSOR.fullmatch(kind)
            degrees = in_degrees(number, tenths=known)
            if not 0 < degrees < NOT_FITTED_C:
                continue
            if known:
                of_processor.append(degrees)
            # Where other zones have millidegrees, a small number is a level or a percentage.
            elif (number >= MILLI or not in_millidegrees) and self._has_moved((name, kind), number):
                others.append(degrees)
        return of_processor, others

    def _has_moved(self, zone, number):
        if self.first.setdefault(zone, number) != number:
            self.moved.add(zone)
        return zone in self.moved
