// Package resourcetest checks the tables of API groups in tests: names against upstream's, defaults, error lists, columns.
package resourcetest
