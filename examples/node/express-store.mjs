// A store for express-session. A save that comes after the session has ended is ignored: it has ended.
import { Store } from 'express-session'
import { sessions } from './sessions.mjs'

export class ExpressStore extends Store {
  #sessions

  constructor(pool) {
    super()
    this.#sessions = sessions(pool)
  }

  get(sid, done) {
    this.#sessions.get(sid).then((session) => done(null, session), done)
  }

  set(sid, session, done) {
    const idle = session.cookie.maxAge / 1000 || null // null: the table's default
    this.#sessions.set(sid, session, idle).then(() => done?.(null), done)
  }

  touch(sid, _session, done) {
    this.#sessions.touch(sid).then(() => done?.(null), done)
  }

  destroy(sid, done) {
    this.#sessions.destroy(sid).then(() => done?.(null), done)
  }
}
