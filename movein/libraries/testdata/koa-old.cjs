// An application on koa 1, which koa-pg-session is for: its store's methods are generators.
const koa = require('koa1')
const session = require('koa1-generic-session')
const PgSession = require('koa-pg-session')
const pg = require('pg')

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
const store = new PgSession((sql, params) => pool.query(sql, [].concat(params ?? [])).then((r) => r.rows))
// Several statements at once take no parameters.
store.query = ((query) => (sql, params) => params === undefined ? pool.query(sql) : query(sql, params))(store.query)

const app = koa()
app.keys = ['not a secret']
app.use(session({ store, cookie: { maxAge: 3600_000 } }))
app.use(function * () {
  const [, action, user] = this.path.split('/')
  if (action === 'login') {
    yield this.regenerateSession()
    this.session.user = user
    this.body = ''
  } else if (action === 'logout') {
    this.session = null
    this.body = ''
  } else {
    this.session.visits = (this.session.visits ?? 0) + 1
    this.body = `${this.session.user ?? 'nobody'} ${this.session.visits}`
  }
})
Promise.resolve(store.setup()).then(() => app.listen(process.env.PORT, '127.0.0.1'))
