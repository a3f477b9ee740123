package container

// ForceOrphans has Open behave as on a kernel older than 6.15.
func ForceOrphans(on bool) { forceOrphans = on }
