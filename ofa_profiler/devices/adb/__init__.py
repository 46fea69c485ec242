"""The adb protocol: a link to a phone, directly or through an adb server."""
