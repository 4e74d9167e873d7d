// An express application on the sessions of the Go application beside it.
import express from 'express'
import session from 'express-session'
import pg from 'pg'
import { ExpressStore } from './express-store.mjs'

const store = new ExpressStore(new pg.Pool({ connectionString: process.env.DATABASE_URL }))
const app = express()
app.use(session({
  store,
  secret: process.env.SECRET ?? 'not a secret',
  resave: false, // only what was changed is saved
  saveUninitialized: false, // nothing is, of a visitor with nothing to remember
  cookie: { maxAge: 3600_000, sameSite: 'lax' }, // and secure: true, over HTTPS
}))
app.get('/', (req, res) => {
  if (!req.session.user) return res.status(401).send('log in first')
  req.session.visits++
  res.send(`${req.session.user} ${req.session.visits}`)
})
app.post('/login/:user', (req, res, next) => req.session.regenerate((err) => {
  if (err) return next(err)
  Object.assign(req.session, { user: req.params.user, visits: 0 })
  res.end()
}))
app.post('/logout', (req, res, next) => req.session.destroy((err) => err ? next(err) : res.end()))
app.listen(process.env.PORT ?? 3000, '127.0.0.1')
