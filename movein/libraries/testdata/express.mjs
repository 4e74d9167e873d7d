// An application on express-session, with the store of before or with pgsession's.
import connectPgSimple from 'connect-pg-simple'
import express from 'express'
import session from 'express-session'
import pg from 'pg'
import { ExpressStore } from './express-store.mjs'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
const PgSimple = connectPgSimple(session)
const store = process.env.STORE === 'old'
  ? new PgSimple({ pool, createTableIfMissing: true, pruneSessionInterval: false })
  : new ExpressStore(pool)

const app = express()
app.use(session({ store, secret: 'not a secret', resave: false, saveUninitialized: false, cookie: { maxAge: 3600_000 } }))
app.get('/', (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  res.send(`${req.session.user ?? 'nobody'} ${req.session.visits}`)
})
app.post('/login/:user', (req, res, next) => req.session.regenerate((err) => {
  if (err) return next(err)
  req.session.user = req.params.user
  res.end()
}))
app.post('/logout', (req, res, next) => req.session.destroy((err) => err ? next(err) : res.end()))
app.listen(process.env.PORT, '127.0.0.1')
