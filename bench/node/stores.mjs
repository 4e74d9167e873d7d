// The stores for Node, each as its own middleware uses it, and configured as its README says.
import co from 'co'
import connectPgSimple from 'connect-pg-simple'
import session from 'express-session'
import KoaPgSession from 'koa-pg-session'

const day = 24 * 60 * 60

// connect-pg-simple, with the pool that its README recommends. Without a cookie in the session it
// takes ttl for the deadline. Pruning is off, as it is for all stores while they are measured.
function connect (pool) {
  const store = new (connectPgSimple(session))({ pool, ttl: day, pruneSessionInterval: false })
  const promise = (method, ...args) => new Promise((resolve, reject) =>
    store[method](...args, (err, result) => err ? reject(err) : resolve(result)))
  return {
    read: (key) => promise('get', key),
    write: (key, value) => promise('set', key, value),
    touch: (key, value) => promise('touch', key, value),
    destroy: (key) => promise('destroy', key)
  }
}

// koa-pg-session, with a function for its queries: the connections that it makes by itself, by pg 4, never
// open in Node 14 and newer. It knows no touch: its middleware sets the session again.
async function koa (pool) {
  const store = new KoaPgSession((sql, args) => pool.query(sql, args).then((result) => result.rows),
    { create: false, cleanupTime: 2 ** 31 - 1 })
  await store.setup()
  const write = co.wrap(function * (key, value) { yield * store.set(key, value, day * 1000) })
  const read = co.wrap(function * (key) { return yield * store.get(key) })
  return { read, write, touch: write, destroy: co.wrap(function * (key) { yield * store.destroy(key) }) }
}

export const stores = { 'connect-pg-simple': connect, 'koa-pg-session': koa }
