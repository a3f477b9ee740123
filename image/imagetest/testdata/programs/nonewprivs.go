// nonewprivs prints its effective user id; installed set-uid root, it shows
// whether set-uid works.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Printf("Effective uid: %d\n", os.Geteuid()) }
