// Package node holds a client in another language, sessions.mjs, which the README shows, and the
// test that runs it beside a Go application on the same sessions.
package node
