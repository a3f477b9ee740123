package arch

// importExceptions are single imports that break the matrix: "importing package -> imported package": why.
var importExceptions = map[string]string{}

// sizeExceptions are things over the hard limit: "kind path[:name]": why.
var sizeExceptions = map[string]string{}
