// A store for koa-session and for koa-generic-session, whose option prefix must be '' for a Go
// application to find the session by the cookie. Both save with the milliseconds that a session lives.
import { sessions } from './sessions.mjs'

export class KoaStore {
  #sessions
  #subject

  // subject says whose a session is, for whoever ends all of a user's.
  constructor(pool, subject = ({ user }) => user) {
    this.#sessions = sessions(pool)
    this.#subject = subject
  }

  async get(key) {
    return (await this.#sessions.get(key))?.value
  }

  async set(key, session, life) {
    const idle = typeof life === 'number' ? life / 1000 : null // koa-session has 'session' too
    // 'revoked': it has ended meanwhile, and stays so
    await this.#sessions.set(key, { value: session, subject: this.#subject(session) }, idle)
  }

  async destroy(key) {
    await this.#sessions.destroy(key)
  }
}
