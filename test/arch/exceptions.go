package arch

// importExceptions are single imports that break the matrix: "importing package -> imported package": why.
var importExceptions = map[string]string{}

// sizeExceptions are things over the hard limit: "kind path[:name]": why.
var sizeExceptions = map[string]string{
	"struct controlplane/resource/resource.go:Kind": "one row of the table of kinds: a flat row is what makes a kind readable; most fields stay zero",
}
