// Package resourcename classifies the names in resource lists (cpu, hugepages-2Mi, example.com/gpu, ...) and
// rounds their quantities. A leaf: it knows the API types and nothing else.
package resourcename
