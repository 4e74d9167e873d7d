// Package echotest has the tests of gorillastore under echo, versions 4 and 5. It is a module of its own
// so that what echo's session middleware is packed with is no requirement of the store.
package echotest
