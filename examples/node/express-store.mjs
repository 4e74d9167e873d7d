// A store for express-session. A save that comes after the session has ended is ignored: it has ended.
import { Store } from 'express-session'
import { sessions } from './sessions.mjs'

export class ExpressStore extends Store {
  #sessions
  #subject

  // subject says whose a session is, for whoever ends all of a user's.
  constructor(pool, subject = ({ user }) => user) {
    super()
    this.#sessions = sessions(pool)
    this.#subject = subject
  }

  get(sid, done) {
    this.#sessions.get(sid).then((session) => done(null, session && { cookie: {}, ...session.value }), done)
  }

  set(sid, session, done) {
    const { maxAge } = session.cookie // null: the table's default; below 0: it has expired
    const idle = maxAge == null ? null : Math.max(maxAge / 1000, 0.001)
    this.#sessions.set(sid, { value: session, subject: this.#subject(session) }, idle).then(() => done?.(null), done)
  }

  touch(sid, _session, done) {
    this.#sessions.touch(sid).then(() => done?.(null), done)
  }

  destroy(sid, done) {
    this.#sessions.destroy(sid).then(() => done?.(null), done)
  }
}
