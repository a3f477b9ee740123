// Package failpoint names the places where a record and an effect are written
// apart, so that a test can end the program at each of them (test/crash) and
// look at what the next start makes of it.
//
// A point costs one atomic load. Nothing happens at any of them unless the
// environment says so:
//
//	KEELSON_FAILPOINT=name=action[:nth]   do action at the nth time (default 1)
//	KEELSON_FAILPOINT=@/path              read the same from a file, at each point anew
//
// The actions:
//
//	exit    end this process as kill -9 does
//	stop    stop it as kill -STOP does: the test kills whom it wants, or goes on
//	error   fail what is being done there, where it can fail (Err)
//
// A file's order is carried out once: the file is then called path.hit.<pid>
// after the process that did. If path.trace exists, it gets a line with its name
// for every point that is reached. Counting begins anew when the file changes.
//
// It is a leaf that every part of the node may import: it imports the standard
// library alone. Whoever starts a process with points of its own hands Environ
// on to it.
//
// Lock order: mu only, held over reading the file.
package failpoint
