// Package projected joins several sources into the files of one volume. The order of the sources decides nothing: the API
// refuses two sources with one path, and a later one would win here.
package projected
