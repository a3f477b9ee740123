// Command benchapi measures the API server of bin/keelson: requests per second of create, get, list and patch for 1, 16 and 64
// clients in JSON and protobuf, the fan-out of a change to many watchers, memory and requests with many objects, the list of many
// pods, and the start with an empty and a full store. With -peer it does the same to another cluster in the same run, turn by turn. `make bench-api` calls it;
// `make test-scale` asks only for what grows.
package main
