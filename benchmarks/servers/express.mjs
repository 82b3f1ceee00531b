// Express under express-rate-limit: `node express.mjs draft-6 100 3000` (draft-7, draft-8, legacy) prints its port and
// serves until its standard input closes. /counts is not limited: answers let through and refused; /halve halves the limit.
import express from 'express'
import {rateLimit} from 'express-rate-limit'

const [form, limit, windowMs] = process.argv.slice(2)
const counts = [0, 0]
let permits = Number(limit)
const app = express()
app.get('/counts', (_, answer) => answer.json(counts))
app.get('/halve', (_, answer) => {
  permits /= 2
  answer.end()
})
app.use((_, answer, next) => {
  answer.on('finish', () => counts[answer.statusCode === 200 ? 0 : 1]++)
  next()
})
app.use(
  rateLimit({
    windowMs: Number(windowMs),
    limit: () => permits,
    standardHeaders: form === 'legacy' ? false : form,
    legacyHeaders: form === 'legacy',
  }),
)
app.get('/item', (_, answer) => answer.send('hello'))
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit()).resume()
