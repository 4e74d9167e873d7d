// Package cache keeps sessions in memory, coherent with a PostgreSQL server that many processes write.
package cache
