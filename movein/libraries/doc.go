// Package libraries tests package movein with the libraries themselves: they fill the old tables, and
// the logins that were made with them go on with pgsession.
package libraries
