package apiserver

import (
	"keelson.dev/keelson/controlplane/resource"
)

// groups is everything that is served. A new group is one line here.
func groups() []resource.Group {
	return []resource.Group{
		minimal(),
	}
}
