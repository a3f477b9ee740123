// Command agnhost is what the suite's pods run: a small stand-in for the image of that name, one verb a role. It knows no test;
// what it serves by HTTP and prints is what the upstream image's verbs of these names do.
package main
