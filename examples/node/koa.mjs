// A koa application on the sessions of the Go application beside it.
import { randomBytes } from 'node:crypto'
import Koa from 'koa'
import session from 'koa-session'
import pg from 'pg'
import { KoaStore } from './koa-store.mjs'

const app = new Koa()
app.keys = [process.env.SECRET ?? 'not a secret']
const store = new KoaStore(new pg.Pool({ connectionString: process.env.DATABASE_URL }))
const genid = () => randomBytes(32).toString('base64url') // a UUID has less than 128 random bits
app.use(session({ store, genid, maxAge: 3600_000, sameSite: 'lax' }, app))
app.use(async (ctx) => {
  const [, action, user] = ctx.path.split('/')
  if (ctx.method === 'POST' && action === 'login') {
    await ctx.session.regenerate() // does nothing where there is no session yet
    Object.assign(ctx.session, { user, visits: 0 })
    ctx.body = ''
  } else if (ctx.method === 'POST' && action === 'logout') {
    ctx.session = null
    ctx.body = ''
  } else if (ctx.session.user) {
    ctx.session.visits++
    ctx.body = `${ctx.session.user} ${ctx.session.visits}`
  } else {
    ctx.throw(401, 'log in first')
  }
})
app.listen(process.env.PORT ?? 3000, '127.0.0.1')
