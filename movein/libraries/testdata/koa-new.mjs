// The same application on koa 2 with pgsession's store.
import Koa from 'koa'
import session from 'koa-generic-session'
import pg from 'pg'
import { KoaStore } from './koa-store.mjs'

const app = new Koa()
app.keys = ['not a secret']
const store = new KoaStore(new pg.Pool({ connectionString: process.env.DATABASE_URL }))
app.use(session({ store, prefix: '', cookie: { maxAge: 3600_000 } }))
app.use(async (ctx) => {
  const [, action, user] = ctx.path.split('/')
  if (action === 'login') {
    await ctx.regenerateSession()
    ctx.session.user = user
    ctx.body = ''
  } else if (action === 'logout') {
    ctx.session = null
    ctx.body = ''
  } else {
    ctx.session.visits = (ctx.session.visits ?? 0) + 1
    ctx.body = `${ctx.session.user ?? 'nobody'} ${ctx.session.visits}`
  }
})
app.listen(process.env.PORT, '127.0.0.1')
